; Boot sector that runs until its power button is pressed. Sector 1 counts its starts (32 bits) and its stops (the next 32).
bits 16
org 0x7c00
%include "bios.asm"

count	equ 0x7e00
PM	equ 0x600		; ACPI registers of a PC as SeaBIOS places them: status, +2 enable, +4 control

main:	mov ah, 0x42
	call sector1
	inc dword [count]
	mov ax, 0x4300
	call sector1
	print "STARTED", LF
	cli			; while it has not looked, or it might sleep through
	mov dx, PM + 2
	mov ax, 0x100		; power button: interrupt 9, the only one from now on
	out dx, ax
	mov al, 0xfb
	out 0x21, al
	mov al, 0xfd
	out 0xa1, al
.wait:	mov dx, PM
	in ax, dx
	test ah, 1
	jnz .stop
	sti
	hlt
	cli
	jmp .wait
.stop:	sti
	inc dword [count + 4]
	mov ax, 0x4300
	call sector1
	print "STOPPED", LF
	mov dx, PM + 4
	mov ax, 0x2000		; soft off
	out dx, ax
	jmp hang

sector1:			; AH: 42 to read, 43 to write
	mov si, packet
	mov dl, [drive]
	int 0x13
	jc failed
	ret
failed:	print "DISK ERROR", LF
	jmp hang

packet:	db 16, 0
	dw 1, count, 0
	dq 1

	times 510 - ($ - $$) db 0
	dw 0xaa55
