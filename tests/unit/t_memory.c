/* t_memory.c - a part of a snapshot is there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/memory.h"
#include "tests/check.h"
#include "tests/child.h"

enum { BYTES = CKPT_BLOCK + 5000, PAGE = 4096 };

static char folder[FS_PATH], path[FS_PATH];
static char *payload, *back;

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

/* In place of the C library's: errors to come, one a call. */
static const int *errors;

int posix_fallocate(int fd, off_t at, off_t bytes)
{
    if (errors && *errors) return *errors++;
    return fallocate(fd, 0, at, bytes) == 0 ? 0 : errno;
}

static void fill(int64_t step)
{
    uint64_t x = (uint64_t)step * 0x9E3779B97F4A7C15u + 1;

    for (int64_t i = 0; i < BYTES; i += 8) { /* BYTES is a multiple of 8 */
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(payload + i, &x, 8);
    }
}

static struct memory *open_part(int buffers)
{
    struct memory *m = NULL;

    must(memory_open(&m, path, BYTES, buffers));
    return m;
}

static kr_status put(struct memory *m, int64_t step)
{
    struct memory_head h = { .world = 2, .rank = 1, .generation = 3, .step = step };

    fill(step);
    return memory_write(m, &h, payload, false);
}

/* Steps that the file holds and that read back right, newest first, as "7 6"; "?" for what
 * reads back other than it was. */
static const char *held(void)
{
    static char text[64];
    struct memory_head h[MEMORY_BUFFERS];
    int32_t buffer[MEMORY_BUFFERS], count = 0;

    text[0] = '\0';
    if (memory_look(path, true, h, buffer, &count) != KR_OK) return "none";
    if (count == 2 && h[0].step < h[1].step) {
        struct memory_head head = h[0];
        int32_t b = buffer[0];

        h[0] = h[1], h[1] = head;
        buffer[0] = buffer[1], buffer[1] = b;
    }
    for (int32_t i = 0; i < count; i++) {
        bool same;

        fill(h[i].step);
        same = memory_read(path, &h[i], buffer[i], 0, BYTES, back) == KR_OK &&
               memcmp(back, payload, BYTES) == 0 && h[i].generation == 3;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s%d", i ? " " : "",
                 same ? "" : "?", (int)h[i].step);
    }
    return text;
}

static void two_buffers_hold_the_newest_two(void)
{
    struct memory *m = open_part(2);

    CHECK_STR(held(), "");
    for (int64_t step = 5; step <= 8; step++)
        must(put(m, step));
    CHECK_STR(held(), "8 7");
    must(memory_forget(m, 8));
    CHECK_STR(held(), "7");
    must(put(m, 9));
    CHECK_STR(held(), "9 7");
    memory_close(m);
    m = open_part(2); /* what is there is kept, and the older one is next */
    CHECK_STR(held(), "9 7");
    must(put(m, 10));
    CHECK_STR(held(), "10 9");
    memory_close(m);
}

static void one_buffer_holds_the_newest(void)
{
    struct memory *m = open_part(2);

    must(put(m, 1));
    memory_close(m);
    m = open_part(1); /* the first buffer stays where it is */
    CHECK_STR(held(), "1");
    must(put(m, 2));
    must(put(m, 3));
    CHECK_STR(held(), "3");
    memory_close(m);
}

static void a_signal_is_no_lack_of_room(void)
{
    errors = (const int[]){ EINTR, EINTR, 0 };
    memory_close(open_part(2));
    CHECK_I64(*errors, ==, 0);
    errors = NULL;
}

static void without_room_for_more_what_is_there_stays(void)
{
    struct memory *m = open_part(1);
    struct stat before, after;

    must(put(m, 4));
    memory_close(m);
    CHECK(stat(path, &before) == 0);
    errors = (const int[]){ ENOSPC, 0 };
    log_mute(true);
    CHECK_I64(memory_open(&m, path, BYTES, 2), ==, KR_ERR_IO);
    CHECK_STR(held(), "4");
    CHECK(stat(path, &after) == 0 && after.st_size == before.st_size);
    must(fs_unlink(path));
    errors = (const int[]){ ENOSPC, 0 };
    CHECK_I64(memory_open(&m, path, BYTES, 2), ==, KR_ERR_IO);
    log_mute(false);
    errors = NULL;
    CHECK(!fs_exists(path));
}

/* Any range, over the edge of a block. */
static void pieces_are_read_from_anywhere(void)
{
    static const int64_t ranges[][2] = {
        { 0, 1 }, { BYTES - 1, 1 }, { CKPT_BLOCK - 3, 6 }, { 100, CKPT_BLOCK }, { 7, 0 }
    };
    struct memory *m = open_part(2);
    struct memory_head h[MEMORY_BUFFERS];
    int32_t buffer[MEMORY_BUFFERS], count;

    must(put(m, 4));
    must(memory_look(path, true, h, buffer, &count));
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        uint64_t at = (uint64_t)ranges[i][0], n = (uint64_t)ranges[i][1];

        memset(back, 0, BYTES);
        CHECK_I64(memory_read(path, h, buffer[0], at, n, back), ==, KR_OK);
        CHECK(memcmp(back, payload + at, n) == 0 && (n == BYTES || back[n] == 0));
    }
    CHECK_I64(memory_read(path, h, buffer[0], BYTES, 1, back), ==, KR_ERR_DATA);
    memory_close(m);
}

/* ---- a kill before and after every write -------------------------------------------- */

static int write_step_9(char **args)
{
    struct memory *m = NULL;

    (void)args;
    return memory_open(&m, path, BYTES, 2) == KR_OK && put(m, 9) == KR_OK ? 0 : 1;
}

static void a_kill_at_any_write_leaves_the_newest(void)
{
    int killed = 0;

    for (int n = 1; n < 40; n++)
        for (int after = 0; after < 2; after++) {
            struct memory *m;
            char fault[32];
            const struct child_end *end;

            must(fs_unlink(path));
            m = open_part(2);
            must(put(m, 7));
            must(put(m, 8));
            memory_close(m);
            snprintf(fault, sizeof fault, "write:%d:%s", n, after ? "after" : "crash");
            end = child_run("KILORANK_FS_FAULT", fault, "write", path);
            if (end->signal != SIGKILL) {
                CHECK_STR(held(), "9 8");
                n = 40;
                break;
            }
            killed++;
            CHECK(strcmp(held(), "8") == 0 || strcmp(held(), "8 7") == 0 ||
                  strcmp(held(), "9 8") == 0);
        }
    CHECK_I64(killed, >=, 8);
}

/* ---- damage ---------------------------------------------------------------------------- */

static void flip(off_t at, int bit)
{
    int fd = open(path, O_RDWR);
    char byte;

    if (fd < 0 || pread(fd, &byte, 1, at) != 1) abort();
    byte = (char)(byte ^ 1 << bit);
    if (pwrite(fd, &byte, 1, at) != 1) abort();
    close(fd);
}

static void a_flipped_bit_is_never_read(void)
{
    struct memory *m = open_part(2);
    off_t second, places[300];
    struct stat s;
    int n = 0, harmless = 0;

    must(put(m, 7));
    must(put(m, 8));
    memory_close(m);
    if (stat(path, &s) != 0) abort();
    second = s.st_size / 2;
    for (off_t i = 0; i < 128; i++) /* every byte of a head */
        places[n++] = second + i;
    for (off_t i = 0; i < 16; i++) /* of the sums */
        places[n++] = second + PAGE + i;
    srand(5);
    for (int i = 0; i < 40; i++)
        places[n++] = second + 2 * PAGE + rand() % BYTES;
    log_mute(true);
    for (int i = 0; i < n; i++) {
        const char *now;

        flip(places[i], i % 8);
        now = held();
        CHECK(strcmp(now, "7") == 0 || strcmp(now, "8 7") == 0);
        harmless += strcmp(now, "8 7") == 0;
        flip(places[i], i % 8);
    }
    log_mute(false);
    CHECK_I64(harmless, ==, 0);
    CHECK_STR(held(), "8 7");
}

static void other_files_are_not_taken_for_parts(void)
{
    struct memory_head h[MEMORY_BUFFERS];
    int32_t buffer[MEMORY_BUFFERS], count = 7;
    struct memory *m = open_part(2);

    must(put(m, 7));
    memory_close(m);
    log_mute(true);
    for (off_t size = 3 * PAGE; size > 0; size -= 1000) {
        CHECK(truncate(path, size) == 0);
        CHECK(memory_look(path, true, h, buffer, &count) != KR_OK || count == 0);
    }
    must(fs_replace(path, "no part of anything", 19));
    CHECK(memory_look(path, true, h, buffer, &count) == KR_OK && count == 0);
    must(fs_unlink(path));
    CHECK(memory_look(path, true, h, buffer, &count) == KR_ERR_IO);
    log_mute(false);
}

static void a_copy_that_differs_from_what_was_sent_is_refused(void)
{
    struct memory *m = open_part(2);
    struct memory_head h = { .world = 2, .rank = 1, .generation = 3, .step = 7 };

    fill(7);
    must(memory_write(m, &h, payload, false));
    must(memory_write(m, &h, payload, true));
    CHECK_STR(held(), "7 7");
    payload[CKPT_BLOCK + 9] ^= 1;
    log_mute(true);
    CHECK_I64(memory_write(m, &h, payload, true), ==, KR_ERR_DATA);
    log_mute(false);
    CHECK_STR(held(), "7");
    memory_close(m);
}

static void one_process_writes(void)
{
    struct memory *m = open_part(2), *second = NULL;

    log_mute(true);
    CHECK_I64(memory_open(&second, path, BYTES, 2), ==, KR_ERR_BUSY);
    log_mute(false);
    memory_close(m);
    CHECK_I64(memory_open(&second, path, BYTES, 2), ==, KR_OK);
    memory_close(second);
}

/* ---- folders --------------------------------------------------------------------------- */

static void a_folder_is_ours_alone_and_older_runs_of_the_place_go(void)
{
    struct memory_run run = { 11, 22 }, old = { 11, 21 }, other = { 12, 22 };
    char a[FS_PATH], b[FS_PATH], c[FS_PATH], d[FS_PATH];
    struct stat s;

    must(memory_folder(a, folder, run, "n1"));
    must(memory_folder(b, folder, old, "n1"));
    must(memory_folder(c, folder, other, "n1"));
    must(memory_folder(d, folder, old, "n2"));
    must(memory_prepare(folder, other, "n1"));
    must(memory_prepare(folder, old, "n2"));
    must(memory_prepare(folder, old, "n1"));
    must(memory_prepare(folder, run, "n1"));
    CHECK(stat(a, &s) == 0 && (s.st_mode & 0777) == 0700);
    CHECK(!fs_exists(b)); /* the same place, another run */
    CHECK(fs_exists(c) && fs_exists(d));
    must(memory_prepare(folder, run, "n1"));
    must(memory_prepare(folder, run, "n3"));
    memory_remove(folder, run); /* under all names of the node, and no other run's */
    CHECK(!fs_exists(a) && fs_exists(c) && fs_exists(d));
    must(memory_prepare(folder, run, "n1"));
    log_mute(true);
    CHECK(chmod(a, 0750) == 0);
    CHECK_I64(memory_prepare(folder, run, "n1"), ==, KR_ERR_IO);
    CHECK(chmod(a, 0700) == 0 && rmdir(a) == 0 && symlink(c, a) == 0);
    CHECK_I64(memory_prepare(folder, run, "n1"), ==, KR_ERR_IO);
    CHECK_I64(memory_prepare("/proc/none", run, "n1"), ==, KR_ERR_IO);
    log_mute(false);
}

int main(int argc, char **argv)
{
    static const struct child_action actions[] = { { "write", write_step_9 }, { 0 } };
    char name[] = "/tmp/t_memory.XXXXXX";
    bool child = argc > 1;

    must(mem_alloc(&payload, BYTES, 1, "test"));
    must(mem_alloc(&back, BYTES + 1, 1, "test"));
    if (child) must(fs_path(path, "%s", argv[2]));
    child_main(actions, argc, argv);
    if (!mkdtemp(name)) abort();
    must(fs_path(folder, "%s", name));
    must(fs_path(path, "%s/part", name));
    RUN(two_buffers_hold_the_newest_two);
    must(fs_unlink(path));
    RUN(one_buffer_holds_the_newest);
    must(fs_unlink(path));
    RUN(a_signal_is_no_lack_of_room);
    RUN(without_room_for_more_what_is_there_stays);
    RUN(pieces_are_read_from_anywhere);
    RUN(a_kill_at_any_write_leaves_the_newest);
    must(fs_unlink(path));
    RUN(a_flipped_bit_is_never_read);
    must(fs_unlink(path));
    RUN(other_files_are_not_taken_for_parts);
    RUN(a_copy_that_differs_from_what_was_sent_is_refused);
    RUN(one_process_writes);
    RUN(a_folder_is_ours_alone_and_older_runs_of_the_place_go);
    must(fs_remove_tree(folder));
    mem_free(payload);
    mem_free(back);
    return check_done();
}
