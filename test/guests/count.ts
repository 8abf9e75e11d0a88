/**
 * A guest of 512 bytes that counts on request: its count is the first 32 bits of sector 1 of its first disk, and is
 * printed at the start and after each change, with the first 32 bits of the sector `FAR_SECTOR`, as `COUNT FAR` in hexadecimal. On
 * COM1 it takes: `w` adds 1 to the count, `r` prints the sector `NEW_SECTOR`, which it has not read before, instead of the
 * far one, `q` turns the machine off.
 */
import { assemble } from "./assemble.ts";

/** 12 MiB: far from what the BIOS reads. */
export const FAR_SECTOR = 24576;
/** 14 MiB: further than what the host reads ahead. */
export const NEW_SECTOR = 28672;

const SOURCE = `
bits 16
org 0x7c00
%include "bios.asm"

count	equ 0x8000
far_	equ 0x8200

main:	mov ah, 0x42
	call disk
	jc failed
.show:	mov dword [packet + 8], ${FAR_SECTOR}
.other:	mov word [packet + 4], far_
	mov ah, 0x42
	call disk
	mov dword [packet + 8], 1
	mov word [packet + 4], count
	jc failed
	mov al, '='
	call putc
	mov eax, [count]
	call hex
	mov al, ' '
	call putc
	mov eax, [far_]
	call hex
	mov al, LF
	call putc
.next:	hlt
	mov dx, 0x3fd
	in al, dx
	test al, 1
	jz .next
	mov dx, 0x3f8
	in al, dx
	cmp al, 'q'
	je main_off
	cmp al, 'r'
	je .new
	cmp al, 'w'
	jne .next
	inc dword [count]
	mov ax, 0x4300
	call disk
	jnc .show
	jmp failed
.new:	mov dword [packet + 8], ${NEW_SECTOR}
	jmp .other
failed:	print "DISK ERROR", LF
	jmp hang
main_off:	mov dx, 0x604
	mov ax, 0x2000
	out dx, ax
	jmp hang

disk:	mov si, packet
	mov dl, 0x80
	int 0x13
	ret

%include "hex.asm"

packet:	db 16, 0
	dw 1, count, 0
	dq 1

	times 510 - ($ - $$) db 0
	dw 0xaa55
`;

/** Builds the boot sector with nasm. */
export const buildCountGuest = (): Promise<Buffer> => assemble(SOURCE);

/** What the guest has printed, oldest first. */
export const readCounts = (console: string): { count: number; far: string }[] =>
  [...console.matchAll(/=([0-9a-f]{8}) ([0-9a-f]{8})/g)].map(([, count, far]) => ({
    count: Number.parseInt(count!, 16),
    far: far!,
  }));
