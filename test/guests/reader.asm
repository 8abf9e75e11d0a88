; Boot sector that never stops reading: SECTORS sectors of its disk at once, again and again.
bits 16
org 0x7c00
%include "bios.asm"

main:	print "READING", LF
.next:	mov ah, 0x42
	mov si, packet
	mov dl, [drive]
	int 0x13
	jnc .next
	print "DISK ERROR", LF
	jmp hang

packet:	db 16, 0
	dw SECTORS, 0, 0x1000	; to 0x10000
	dq 0

	times 510 - ($ - $$) db 0
	dw 0xaa55
