/*
 * A library with LeechCore's interface, for tests: memory of 64 pages at 1 MiB, and misbehaviour on demand.
 *
 * The device's name says what it does: fake://log=PATH;WORD;WORD. Each call is a line of the log. Structures as in leechcore.h,
 * written anew; the numbers are those of LeechCore 2.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 2
#endif
#define FIRST 0x100000ull
#define SIZE 0x40000ull
#define TEXT 260

struct config {
	uint32_t version, verbosity;
	char device[TEXT], remote[TEXT];
	void *print;
	uint64_t last;
	uint32_t volatile_, writable, remote_, plain;
	char name[TEXT];
};

struct refusal {
	uint32_t version, size, reserved[16], asks, len;
	uint16_t text[16];
};

struct entry {
	uint32_t version, done;
	uint64_t address;
	union { uint8_t *bytes; uint64_t filler; };
	uint32_t len, top;
	uint64_t stack[12];
};

struct range {
	uint64_t address, len, device;
};

struct device {
	char words[TEXT];
	char log[TEXT];
	uint64_t last;
	uint8_t memory[SIZE];
};

static int has(const struct device *d, const char *word)
{
	return strstr(d->words, word) != NULL;
}

static void note(const struct device *d, const char *what, unsigned long long a, unsigned long long b)
{
	FILE *f = d->log[0] ? fopen(d->log, "a") : NULL;

	if (f) {
		fprintf(f, "%s %llx %llx\n", what, a, b);
		fclose(f);
	}
}

void *LcCreateEx(struct config *config, struct refusal **refused)
{
	struct device *d;
	const char *log;

	if (config->version != 0xc0fd0002)
		return NULL;
	d = calloc(1, sizeof(*d));
	memcpy(d->words, config->device, TEXT);
	if ((log = strstr(d->words, "log=")))
		strncpy(d->log, log + 4, strcspn(log + 4, ";"));
	note(d, "create", config->last, config->remote[0] != 0);
	if (has(d, "refuse")) {
		static const char text[] = "board is off";
		struct refusal *r = calloc(1, sizeof(*r));
		size_t i;

		r->version = 0xc0fe0002;
		r->size = sizeof(*r);
		r->len = has(d, "lying") ? 0xffffffff : sizeof(text);
		for (i = 0; i < sizeof(text); i++)
			r->text[i] = text[i];
		if (!has(d, "silent"))
			*refused = r;
		else
			free(r);
		free(d);
		return NULL;
	}
	for (uint64_t i = 0; i < SIZE; i++)
		d->memory[i] = (FIRST + i) * 7 + ((FIRST + i) >> 12);
	d->last = config->last;
	config->volatile_ = has(d, "volatile");
	config->writable = has(d, "writable");
	if (has(d, "longname"))
		memset(config->name, 'n', TEXT);
	else
		strcpy(config->name, "fake");
	return d;
}

void LcClose(struct device *d)
{
	note(d, "close", 0, 0);
	free(d);
}

void LcMemFree(void *p)
{
	free(p);
}

uint32_t LcGetOption(struct device *d, uint64_t option, uint64_t *value)
{
	if (option != 0x4000000500000000ull || has(d, "ageless"))
		return 0;
	*value = VERSION;
	return 1;
}

static uint32_t give(uint8_t **out, uint32_t *len, const void *bytes, uint32_t count, uint32_t said)
{
	*out = malloc(count);
	memcpy(*out, bytes, count);
	*len = said;
	return 1;
}

uint32_t LcCommand(struct device *d, uint64_t command, uint32_t in_len, uint8_t *in, uint8_t **out, uint32_t *len)
{
	struct range own[3] = { { FIRST, 0x20000, FIRST }, { FIRST + 0x20000, 0x10000, 0 }, { FIRST + 0x38000, 0x8000, 0 } };
	struct range twice[2] = { { FIRST, 0x2000, 0 }, { FIRST + 0x1000, 0x1000, 0 } };
	struct range guess = { 0, d->last ? d->last : FIRST + SIZE, 0 };

	(void)in, (void)in_len;
	if (command != 0x4000040000000000ull || has(d, "mapless"))
		return 0;
	if (has(d, "own"))
		return give(out, len, own, sizeof(own), sizeof(own));
	if (has(d, "twice"))
		return give(out, len, twice, sizeof(twice), sizeof(twice));
	if (has(d, "torn"))
		return give(out, len, own, sizeof(own), sizeof(own) - 1);
	if (has(d, "endless"))
		return give(out, len, own, sizeof(own), 24u * 100000u);
	if (has(d, "empty"))
		return give(out, len, own, sizeof(own), 0);
	return give(out, len, &guess, sizeof(guess), sizeof(guess));
}

void LcReadScatter(struct device *d, uint32_t count, struct entry **entries)
{
	note(d, "read", count, 0);
	for (uint32_t i = 0; i < count; i++) {
		struct entry *e = entries[i];
		int bad = e->version != 0xc0fe0002 || e->address % 4 || e->len < 8 || e->len % 4 ||
			  e->len > 0x1000 - e->address % 0x1000;

		note(d, bad ? "BAD" : "r", e->address, e->len);
		if (has(d, "odd") && e->address >> 12 & 1) {
			memset(e->bytes, 0xdd, e->len);
			continue;
		}
		if (e->address < FIRST || e->address + e->len > FIRST + SIZE)
			continue;
		memcpy(e->bytes, d->memory + (e->address - FIRST), e->len);
		if (has(d, "more"))
			memset(e->bytes + e->len, 0xee, 0x1000 - e->len);
		e->done = 1;
		if (has(d, "scribble")) {
			e->len = 0xffffffff;
			e->address = 1;
			e->top = 99;
			e->filler = 0;
			entries[i] = NULL;
		}
	}
}

#ifndef WITHOUT_WRITE
void LcWriteScatter(struct device *d, uint32_t count, struct entry **entries)
{
	note(d, "write", count, 0);
	for (uint32_t i = 0; i < count; i++) {
		struct entry *e = entries[i];

		note(d, e->len > 0x1000 - e->address % 0x1000 ? "BAD" : "w", e->address, e->len);
		if (has(d, "odd") && e->address >> 12 & 1)
			continue;
		if (e->address < FIRST || e->address + e->len > FIRST + SIZE)
			continue;
		memcpy(d->memory + (e->address - FIRST), e->bytes, e->len);
		e->done = 1;
	}
}
#endif
