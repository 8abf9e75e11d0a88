/**
 * A guest of 512 bytes that says whether its RAM, its devices and its disk are of one point in time. It draws a number when it
 * boots, keeps it only in RAM, and counts, 18 times a second: first in RAM, then in sector 1 of its first disk (`number count`,
 * little-endian, 32 bits each). For each byte that it receives on COM1 it prints `=NUMBER COUNT` in hexadecimal.
 */
import { assemble } from "./assemble.ts";
import { closeSync, openSync, readSync } from "node:fs";

const SOURCE = `
bits 16
org 0x7c00
%include "bios.asm"

record	equ 0x8000

main:	print "RAM", LF
	rdtsc
	xor eax, edx
	mov [record], eax
	mov dword [record + 4], 0
	mov dword [record + 8], "RAMG"
.next:	hlt
	mov dx, 0x3fd
	in al, dx
	test al, 1
	jz .count
	mov dx, 0x3f8
	in al, dx
	mov al, '='
	call putc
	mov eax, [record]
	call hex
	mov al, ' '
	call putc
	mov eax, [record + 4]
	call hex
	mov al, LF
	call putc
	jmp .next
.count:	inc dword [record + 4]
	mov ax, 0x4300
	mov si, packet
	mov dl, 0x80
	int 0x13
	jnc .next
	print "DISK ERROR", LF
	jmp hang

%include "hex.asm"

packet:	db 16, 0
	dw 1, record, 0
	dq 1

	times 510 - ($ - $$) db 0
	dw 0xaa55
`;

/** Builds the boot sector with nasm. */
export const buildRamGuest = (): Promise<Buffer> => assemble(SOURCE);

/**
 * The same by a Linux (linux.iso of build.ts): a script in its initramfs, which counts a few times a second. Its disk is
 * /dev/vda.
 */
export const LINUX_RAM_GUEST = `
little() { printf '%08x' "$1" | sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\)/\\\\x\\4\\\\x\\3\\\\x\\2\\\\x\\1/'; }
number=$(od -An -N4 -tu4 /dev/urandom)
number=$((number))
count=0
stty -icanon -echo
echo RAM
while :; do
  count=$((count + 1))
  printf "$(little $number)$(little $count)RAMG" >/tmp/record
  dd if=/tmp/record of=/dev/vda bs=512 seek=1 conv=sync,notrunc,fsync 2>/dev/null
  if read -t 0.1 -n 1 byte; then printf '=%08x %08x\\n' $number $count; fi
done
`;

/** What the guest says of itself, or what its disk says. */
export interface RamRecord {
  number: number;
  count: number;
}

/** The answers in a console log. */
export const readAnswers = (console: string): RamRecord[] =>
  [...console.matchAll(/=([0-9a-f]{8}) ([0-9a-f]{8})/g)].map(([, number, count]) => ({
    number: Number.parseInt(number!, 16),
    count: Number.parseInt(count!, 16),
  }));

/** The guest's record in a raw image; undefined before its first one. */
export function readRecord(image: string): RamRecord | undefined {
  const fd = openSync(image, "r");
  try {
    const bytes = Buffer.alloc(12);
    readSync(fd, bytes, 0, bytes.length, 512);
    if (bytes.toString("latin1", 8) !== "RAMG") return undefined;
    return { number: bytes.readUInt32LE(0), count: bytes.readUInt32LE(4) };
  } finally {
    closeSync(fd);
  }
}
