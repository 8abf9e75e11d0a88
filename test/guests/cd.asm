; El Torito boot program, in three kinds: -DINSTALL, -DHALT, -DHANG.
bits 16
org 0x7c00
%include "bios.asm"

main:
%ifdef HANG
	print "HANGING", LF
	jmp hang
%else
	print "BOOTED FROM CD", LF
%ifdef HALT
	jmp poweroff
%else
	cmp byte [0x475], 0	; BIOS data area: number of hard disks
	je none
	mov si, packet
	mov dl, 0x80
	mov ax, 0x4300		; extended write
	int 0x13
	jc failed
	print "INSTALLED", LF
	mov al, 0xfe		; keyboard controller: reset line
	out 0x64, al
	jmp hang
none:	print "NO DISK", LF
	jmp poweroff
failed:	print "WRITE FAILED", LF
	jmp poweroff

packet:	db 16, 0
	dw 2, sectors, 0	; two sectors to
	dq 0			; LBA 0

sectors:
	incbin "disk.bin"	; the boot sector,
	times 512 db 0		; and the count of runs
%endif
%endif
	times 2048 - ($ - $$) db 0
