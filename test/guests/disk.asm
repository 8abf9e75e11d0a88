; Boot sector of the installed disk: counts its runs in sector 1.
bits 16
org 0x7c00
%include "bios.asm"

count	equ 0x7e00

main:	print "BOOTED FROM DISK", LF
	mov ah, 0x42
	call sector1
	inc dword [count]
	mov ax, 0x4300
	call sector1
	print "RUN "
	mov eax, [count]
	mov ebx, 10
	xor cx, cx
.digit:	xor edx, edx
	div ebx
	push dx
	inc cx
	test eax, eax
	jnz .digit
.print:	pop ax
	add al, '0'
	call putc
	loop .print
	print LF
	jmp poweroff

sector1:			; AH: 42 to read, 43 to write
	mov si, packet
	mov dl, [drive]
	int 0x13
	jc failed
	ret
failed:	print "DISK ERROR", LF
	jmp poweroff

packet:	db 16, 0
	dw 1, count, 0
	dq 1

	times 510 - ($ - $$) db 0
	dw 0xaa55
