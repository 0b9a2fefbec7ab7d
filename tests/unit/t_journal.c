/* t_journal.c - what was written is known again, also after a crash in the middle. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "scheduler/journal.h"
#include "scheduler/json.h"
#include "tests/check.h"

static char run[FS_PATH], file[FS_PATH];
static struct journal_past past;

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

static struct journal *reopen(struct journal *j)
{
    journal_close(j);
    must(journal_open(&j, run, &past));
    return j;
}

static void write_start(struct journal *j, int64_t generation, int64_t step)
{
    struct mem_text *t = journal_begin(j, "start");

    json_int(t, "generation", generation);
    json_int(t, "step", step);
    json_text(t, "why", "a \"quoted\" \\ name\n");
    journal_end(j);
}

static void append(const char *text)
{
    FILE *f = fopen(file, "a");

    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

static void a_new_run_has_no_past(void)
{
    struct journal *j = NULL;

    CHECK_I64(journal_look(run, &past), ==, KR_ERR_IO);
    j = reopen(NULL);
    CHECK_STR(past.run, "");
    CHECK_I64(past.step, ==, -1);
    json_text(journal_begin(j, "launch"), "run", "0123abcd");
    journal_end(j);
    write_start(j, 1, 10);
    j = reopen(j);
    CHECK_STR(past.run, "0123abcd");
    CHECK_I64(past.generation, ==, 1);
    CHECK_I64(past.step, ==, 10);
    CHECK(!past.is_over);
    journal_close(j);
}

static void a_torn_line_costs_itself_alone(void)
{
    struct journal *j;

    append("{\"time\": 1, \"event\": \"start\", \"generation\": 99, \"st");
    j = reopen(NULL);
    CHECK_I64(past.generation, ==, 1);
    write_start(j, 2, 20);
    j = reopen(j);
    CHECK_I64(past.generation, ==, 2);
    CHECK_I64(past.step, ==, 20);
    journal_close(j);
}

static void zeros_of_a_power_loss_hide_no_later_line(void)
{
    struct journal *j;

    if (truncate(file, 4096) != 0) abort(); /* longer than it is */
    j = reopen(NULL);
    CHECK_I64(past.generation, ==, 2);
    write_start(j, 3, 20);
    j = reopen(j);
    CHECK_I64(past.generation, ==, 3);
    journal_close(j);
}

static void strange_lines_are_passed_over(void)
{
    append("no JSON\n[1, 2]\n\"event\"\n{\"event\": 3}\n{\"event\": \"start\", "
           "\"generation\": 1e300}\n");
    must(journal_look(run, &past));
    CHECK_I64(past.generation, ==, 3);
}

static void the_end_is_remembered_until_the_next_start(void)
{
    struct journal *j = reopen(NULL);
    struct mem_text *t = journal_begin(j, "fault");

    json_text(t, "why", "node n2 fell silent");
    journal_end(j);
    json_int(journal_begin(j, "end"), "code", 9);
    journal_end(j);
    j = reopen(j);
    CHECK(past.is_over);
    CHECK_I64(past.code, ==, 9);
    CHECK_I64(past.faults, ==, 1);
    CHECK_STR(past.last_fault, "node n2 fell silent");
    write_start(j, 4, 30);
    j = reopen(j);
    CHECK(!past.is_over);
    journal_close(j);
}

static void a_second_supervisor_is_refused(void)
{
    struct journal *j = reopen(NULL), *second = NULL;

    CHECK_I64(journal_open(&second, run, &past), ==, KR_ERR_BUSY);
    CHECK(second == NULL);
    journal_close(j);
}

static void a_full_disk_loses_lines_and_no_more(void)
{
    struct journal *j = reopen(NULL);

    setenv("KILORANK_FS_FAULT", "write:1:ENOSPC", 1);
    write_start(j, 5, 40);
    unsetenv("KILORANK_FS_FAULT");
    write_start(j, 6, 50);
    j = reopen(j);
    CHECK_I64(past.generation, ==, 6);
    journal_close(j);
}

int main(void)
{
    char folder[] = "/tmp/kr-journal.XXXXXX";

    if (!mkdtemp(folder)) return 2;
    must(fs_path(run, "%s", folder));
    must(fs_path(file, "%s/supervisor.jsonl", folder));
    log_mute(true);
    RUN(a_new_run_has_no_past);
    RUN(a_torn_line_costs_itself_alone);
    RUN(zeros_of_a_power_loss_hide_no_later_line);
    RUN(strange_lines_are_passed_over);
    RUN(the_end_is_remembered_until_the_next_start);
    RUN(a_second_supervisor_is_refused);
    RUN(a_full_disk_loses_lines_and_no_more);
    must(fs_remove_tree(folder));
    return check_done();
}
