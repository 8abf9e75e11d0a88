; hex: prints eax in hexadecimal, by putc of bios.asm.
hex:	mov cx, 8
.digit:	rol eax, 4
	push eax
	and al, 15
	add al, '0'
	cmp al, '9'
	jbe .put
	add al, 'a' - '0' - 10
.put:	call putc
	pop eax
	loop .digit
	ret
