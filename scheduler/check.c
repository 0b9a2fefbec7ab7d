/* check.c - one function per thing that may be broken. */
#include "scheduler/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum { ROUNDS = 200000, PATTERN = 32 << 20, SHM_LEAST = 16 << 20, BLOCK = 1 << 20 };
static const uint64_t memory_least = 64 << 20;

uint64_t check_free_memory(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) break;
    if (f) fclose(f);
    return kib << 10;
}

/* The same sum twice in different order of work; a processor that errs does not agree with
 * itself, and both must be what the first machine computed. */
static const char *arithmetic(const char *run, const char *node)
{
    static const uint64_t want = UINT64_C(0xcd7cac1645424bdf);
    double x = 1, y = 1;
    uint64_t bits = 0, word;

    (void)run, (void)node;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        bits ^= rng_u64(i, RNG_TEST, 0, i);
        x = x / (1 + 1.0 / i) + 1.0 / i;
        y = y / (1 + 1.0 / i) + 1.0 / i;
    }
    memcpy(&word, &x, sizeof word);
    return x == y && (bits ^ word) == want ? NULL : "it computes wrong results";
}

static const char *memory(const char *run, const char *node)
{
    static const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t *at = NULL, bad = 0, free_bytes = check_free_memory();

    (void)run, (void)node;
    if (free_bytes > 0 && free_bytes < memory_least)
        return "less than 64 MiB of memory is free";
    if (!(at = malloc(PATTERN))) return "no memory";
    for (uint64_t i = 0; i < PATTERN / sizeof *at; i++)
        at[i] = i * odd;
    __asm__ volatile("" ::"r"(at) : "memory"); /* it must really go to memory */
    for (uint64_t i = 0; i < PATTERN / sizeof *at; i++)
        bad |= at[i] ^ i * odd;
    free(at);
    return bad ? "memory does not keep what is written" : NULL;
}

static const char *shm(const char *run, const char *node)
{
    uint64_t bytes;

    (void)run, (void)node;
    if (access("/dev/shm", W_OK | X_OK) != 0) return "/dev/shm cannot be written";
    if (fs_free_bytes("/dev/shm", &bytes) != KR_OK || bytes < SHM_LEAST)
        return "/dev/shm is full";
    return NULL;
}

/* Written, flushed, read again: by this node, into the folder that all nodes share. */
static kr_status write_and_read(const char *path, char *block, uint64_t *back)
{
    int fd;
    kr_status st;

    TRY(fs_open(&fd, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC));
    st = fs_pwrite(fd, path, block, BLOCK, 0);
    if (st == KR_OK) st = fs_fsync(fd, path);
    if (st == KR_OK) st = fs_pread(fd, path, block, BLOCK, 0);
    *back = hash64(block, BLOCK);
    close(fd);
    return st;
}

static const char *disk(const char *run, const char *node)
{
    char path[FS_PATH], *block = malloc(BLOCK);
    uint64_t want, back = 0;
    bool is_good;

    if (!block) return "no memory";
    for (uint32_t i = 0; i < BLOCK / sizeof i; i++)
        memcpy(block + i * sizeof i, &i, sizeof i);
    want = hash64(block, BLOCK);
    is_good = fs_path(path, "%s/.check-%s", run, node) == KR_OK &&
              write_and_read(path, block, &back) == KR_OK && want == back;
    (void)unlink(path);
    free(block);
    return is_good ? NULL : "the run directory cannot be written from here";
}

static bool is_faulty(const char *name)
{
    const char *list = getenv("KILORANK_CHECK_FAULT"),
               *at = list ? strstr(list, name) : NULL;

    return at && (at == list || at[-1] == ',') && strchr(",", at[strlen(name)]) != NULL;
}

void check_node(const char *run, const char *node, char *trouble, size_t size)
{
    static const struct {
        const char *name;
        const char *(*run)(const char *run, const char *node);
    } checks[] = { { "arithmetic", arithmetic },
                   { "memory", memory },
                   { "shm", shm },
                   { "disk", disk } };

    *trouble = '\0';
    for (size_t i = 0; i < sizeof checks / sizeof *checks && !*trouble; i++) {
        const char *found =
            is_faulty(checks[i].name) ? "a fault was injected" : checks[i].run(run, node);

        if (found) snprintf(trouble, size, "%s: %s", checks[i].name, found);
    }
}
