; Boot sector that never stops writing: record N goes to sector N of the first disk, then of the second, 36 a second.
; A record is N (little-endian, 32 bits) and "RECO"; the rest of its sector is zero.
bits 16
org 0x7c00
%include "bios.asm"

LIMIT	equ 24000		; the records stay below 12 MiB
record	equ 0x8000

main:	print "BUSY", LF
	mov di, record
	mov cx, 256
	xor ax, ax
	rep stosw
	mov dword [record + 4], "RECO"
.next:	inc dword [record]
	mov eax, [record]
	mov [lba], eax
	mov dl, 0x80
	call write
	mov dl, 0x81
	call write
	test byte [record], 1
	jnz .next
	hlt			; until the timer, 18 times a second
	test byte [record], 7
	jnz .on
	mov al, '.'
	call putc
.on:	cmp dword [record], LIMIT
	jb .next
	print "FULL", LF
	jmp hang

write:	mov ax, 0x4300
	mov si, packet
	int 0x13
	jc .failed
	ret
.failed: print "DISK ERROR", LF
	jmp hang

packet:	db 16, 0
	dw 1, record, 0
lba:	dq 0

	times 510 - ($ - $$) db 0
	dw 0xaa55
