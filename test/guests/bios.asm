; Included by cd.asm and disk.asm: 16-bit real mode, DS = ES = SS = 0.

%define LF 10

%macro print 1+			; print "text", LF: on COM1 and on the screen
	jmp %%go
%%text:	db %1, 0
%%go:	mov si, %%text
	call puts
%endmacro

start:	jmp 0:begin
begin:	cli
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	sti
	cld
	mov [drive], dl
	mov si, uart
.uart:	lodsw			; low byte: register, high byte: value
	mov dx, 0x3f8
	add dl, al
	mov al, ah
	out dx, al
	cmp si, uart.end
	jb .uart
	jmp main

uart:	db 1, 0,  3, 0x80,  0, 1,  1, 0,  3, 3,  4, 3	; 115200 8n1, no interrupts
.end:
drive:	db 0

puts:	lodsb
	test al, al
	jz .end
	call putc
	jmp puts
.end:	ret

putc:	pusha			; AL on both; only the screen gets a carriage return before a line feed
	push ax
	mov dx, 0x3fd
.wait:	in al, dx
	test al, 0x20
	jz .wait
	pop ax
	mov dx, 0x3f8
	out dx, al
	mov bx, 7
	mov ah, 0x0e
	cmp al, LF
	jne .put
	mov al, 13
	int 0x10
	mov ax, 0x0e00 + LF
.put:	int 0x10
	popa
	ret

poweroff:			; APM: connect, then set the power state of everything to "off"
	mov ax, 0x5301
	xor bx, bx
	int 0x15
	mov ax, 0x5307
	mov bx, 1
	mov cx, 3
	int 0x15
hang:	sti
	hlt
	jmp hang
