/*
 * Loads one disk, for scripts/bench disks; runs in a guest.
 *
 *   disk-load DISK read|write|sync seq|random|once BLOCK JOBS DEPTH MILLISECONDS COUNT
 *
 * Each job has DEPTH requests of BLOCK bytes in flight, for that time or that number of requests; 0: no limit. `sync` is a write
 * with fdatasync(2) after each. `once` writes no block twice. Prints the requests of all jobs, nanoseconds, and nanoseconds with
 * a flush at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_DEPTH = 64, ALIGNMENT = 4096 };

static const char *path, *operation, *pattern;
static uint64_t block, limit_ns, limit_count, blocks;
static long depth;
static unsigned char *taken;

static void fail(const char *what)
{
	fprintf(stderr, "disk-load: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t noise(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The number of the next block. */
static uint64_t choose(uint64_t *state, uint64_t *next)
{
	uint64_t number;

	if (!strcmp(pattern, "seq"))
		return (*next)++ % blocks;
	do
		number = noise(state) % blocks;
	while (taken && (taken[number / 8] & 1 << number % 8));
	if (taken)
		taken[number / 8] |= (unsigned char)(1 << number % 8);
	return number;
}

/* @return requests done */
static uint64_t run_job(uint64_t seed)
{
	struct iocb requests[MOST_DEPTH], *list[MOST_DEPTH];
	struct io_event done[MOST_DEPTH];
	int writes = strcmp(operation, "read") != 0, syncs = !strcmp(operation, "sync");
	uint64_t state = seed, next = seed % blocks, sent = 0, ended = 0, begin = now();
	aio_context_t context = 0;
	int fd = open(path, O_RDWR | O_DIRECT);

	if (fd < 0 || syscall(SYS_io_setup, depth, &context) < 0)
		fail("cannot open");
	for (long index = 0; index < depth; index++) {
		uint64_t *buffer = aligned_alloc(ALIGNMENT, block);

		for (uint64_t at = 0; at < block / sizeof *buffer; at++)
			buffer[at] = noise(&state);
		memset(&requests[index], 0, sizeof requests[index]);
		requests[index].aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		requests[index].aio_fildes = (uint32_t)fd;
		requests[index].aio_buf = (uintptr_t)buffer;
		requests[index].aio_nbytes = block;
		list[index] = &requests[index];
	}
	for (long free = depth;;) {
		long count = 0, came;

		while (count < free && (!limit_count || sent < limit_count) && (!limit_ns || now() - begin < limit_ns)) {
			list[count]->aio_offset = (int64_t)(choose(&state, &next) * block);
			*(uint64_t *)(uintptr_t)list[count]->aio_buf = sent++;
			count++;
		}
		for (long at = 0; at < count;) {
			long taken_now = syscall(SYS_io_submit, context, count - at, list + at);

			if (taken_now < 0)
				fail("cannot submit to");
			at += taken_now;
		}
		if (sent == ended)
			break;
		came = syscall(SYS_io_getevents, context, 1L, depth, done, NULL);
		if (came < 0)
			fail("cannot wait for");
		for (free = 0; free < came; free++) {
			if (done[free].res != (int64_t)block) {
				errno = done[free].res < 0 ? (int)-done[free].res : EIO;
				fail("cannot use");
			}
			list[free] = (struct iocb *)(uintptr_t)done[free].obj;
		}
		ended += (uint64_t)came;
		if (syncs && fdatasync(fd) < 0)
			fail("cannot flush");
	}
	return ended;
}

int main(int count, char **words)
{
	uint64_t bytes, begin, end, total = 0, *sums;
	int jobs, fd;

	if (count != 9)
		return 64;
	path = words[1];
	operation = words[2];
	pattern = words[3];
	block = strtoull(words[4], NULL, 10);
	jobs = atoi(words[5]);
	depth = atol(words[6]);
	limit_ns = strtoull(words[7], NULL, 10) * 1000000;
	limit_count = strtoull(words[8], NULL, 10);
	if (depth < 1 || depth > MOST_DEPTH || block % ALIGNMENT)
		return 64;
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		fail("cannot open");
	blocks = bytes / block;
	if (!strcmp(pattern, "once"))
		taken = calloc(blocks / 8 + 1, 1);
	sums = mmap(NULL, ALIGNMENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	begin = now();
	for (int job = 0; job < jobs; job++)
		if (!fork()) {
			sums[job] = run_job(begin * 2 + 1 + (uint64_t)job * 7919);
			_exit(0);
		}
	for (int job = 0; job < jobs; job++) {
		int status;

		if (wait(&status) < 0 || status)
			return 1;
	}
	end = now();
	if (fdatasync(fd) < 0)
		fail("cannot flush");
	for (int job = 0; job < jobs; job++)
		total += sums[job];
	printf("%llu %llu %llu\n", (unsigned long long)total, (unsigned long long)(end - begin),
	       (unsigned long long)(now() - begin));
	return 0;
}
