/* t_remnants.c - what a run left in node memory goes once it is over, and nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "scheduler/remnants.h"
#include "tests/check.h"

static char top[FS_PATH], prefix[FS_PATH];

static const char *at(const char *name)
{
    static char path[FS_PATH];

    CHECK_I64(fs_path(path, "%s/%s", top, name), ==, KR_OK);
    return path;
}

/* A run, its memory on this node under two names of it, and another run's. */
static void build(void)
{
    static const char *const folders[] = { "kilorank-0-aa-bb-n1", "kilorank-0-aa-bb-n2",
                                           "kilorank-0-aa-bc-n1", "other" };
    char text[FS_PATH + 64];

    snprintf(top, sizeof top, "%s/kr-remnants.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(top) != NULL);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        CHECK_I64(fs_mkdirs(at(folders[i])), ==, KR_OK);
        snprintf(text, sizeof text, "%s/part", folders[i]);
        CHECK_I64(fs_replace(at(text), "x", 1), ==, KR_OK);
    }
    snprintf(text, sizeof text, "%s/kilorank-0-aa-bb-", top);
    CHECK_I64(fs_replace(at("memory"), text, strlen(text)), ==, KR_OK);
}

static void while_the_run_lives_all_stays(void)
{
    build();
    remnants_find(prefix, top);
    CHECK(strstr(prefix, "/kilorank-0-aa-bb-") != NULL);
    remnants_remove(prefix, top);
    CHECK(fs_exists(at("kilorank-0-aa-bb-n1/part")));
}

static void once_it_is_over_its_own_goes(void)
{
    CHECK_I64(fs_unlink(at("memory")), ==, KR_OK);
    remnants_find(prefix, top); /* still known */
    remnants_remove(prefix, top);
    CHECK(!fs_exists(at("kilorank-0-aa-bb-n1")));
    CHECK(!fs_exists(at("kilorank-0-aa-bb-n2")));
    CHECK(fs_exists(at("kilorank-0-aa-bc-n1/part")));
    CHECK(fs_exists(at("other/part")));
}

static void no_word_of_memory_removes_nothing(void)
{
    static const char *const lies[] = { "", "/", "kilorank-x-", "/tmp/other",
                                        "/kilorank-0" };
    char known[FS_PATH] = "";

    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        CHECK_I64(fs_replace(at("memory"), lies[i], strlen(lies[i])), ==, KR_OK);
        remnants_find(known, top);
        CHECK_STR(known, "");
    }
    CHECK_I64(fs_unlink(at("memory")), ==, KR_OK);
    remnants_remove(known, top);
    CHECK(fs_exists(at("other/part")));
}

int main(void)
{
    RUN(while_the_run_lives_all_stays);
    RUN(once_it_is_over_its_own_goes);
    RUN(no_word_of_memory_removes_nothing);
    (void)fs_remove_tree(top);
    return check_done();
}
