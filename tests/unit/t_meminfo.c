/* t_meminfo.c - available memory from pretended /proc and /sys. */
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/meminfo.h"
#include "tests/check.h"

static char root[FS_PATH];

static void put(const char *name, const char *text)
{
    char path[FS_PATH], folder[FS_PATH];

    if (fs_path(path, "%s/%s", root, name)) abort();
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    if (fs_mkdirs(folder) || fs_replace(path, text, strlen(text))) abort();
}

static void start(void)
{
    snprintf(root, sizeof root, "%s/kilorank-meminfo-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(root)) abort();
    put("proc/meminfo", "MemTotal:        1000 kB\nMemFree:  100 kB\n"
                        "MemAvailable:     800 kB\n");
}

static void expect(uint64_t total, uint64_t available)
{
    uint64_t got_total, got;

    meminfo_read(root, &got_total, &got);
    CHECK_I64(got_total, ==, total);
    CHECK_I64(got, ==, available);
    CHECK(fs_remove_tree(root) == KR_OK);
}

static void without_groups_it_is_what_linux_calls_available(void)
{
    start();
    expect(1000 * 1024, 800 * 1024);
}

static void a_group_of_version_2_limits_less_its_cache(void)
{
    start();
    put("proc/self/cgroup", "0::/job/step\n");
    put("sys/fs/cgroup/job/step/memory.max", "max\n");
    put("sys/fs/cgroup/job/step/memory.current", "300000\n");
    put("sys/fs/cgroup/job/memory.max", "500000\n");
    put("sys/fs/cgroup/job/memory.current", "300000\n");
    put("sys/fs/cgroup/job/memory.stat", "anon 7\ninactive_file 50000\n");
    expect(500000, 250000);
}

static void a_full_group_has_no_room(void)
{
    start();
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/memory.max", "500000\n");
    put("sys/fs/cgroup/memory.current", "600000\n");
    expect(500000, 0);
}

static void a_group_of_version_1_limits_too(void)
{
    start();
    put("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/slurm/job_7\n0::/elsewhere\n");
    put("sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/slurm/memory.usage_in_bytes", "1\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "400000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "100000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.stat", "total_inactive_file 1000\n");
    expect(400000, 301000);
}

static void an_unknown_host_tells_nothing(void)
{
    start();
    put("proc/meminfo", "nonsense\n");
    expect(0, 0);
}

static void the_kernel_counts_whom_it_kills(void)
{
    start();
    CHECK_I64(meminfo_killed(root), ==, 0);
    put("proc/vmstat", "nr_free_pages 7\noom_kill_x 4\noom_kill 3\nthp 9\n");
    CHECK_I64(meminfo_killed(root), ==, 3);
}

static void this_host_tells(void)
{
    uint64_t total, available;

    meminfo_read("", &total, &available);
    CHECK(total > 1 << 20);
    CHECK(available > 0 && available <= total);
}

int main(void)
{
    RUN(without_groups_it_is_what_linux_calls_available);
    RUN(a_group_of_version_2_limits_less_its_cache);
    RUN(a_full_group_has_no_room);
    RUN(a_group_of_version_1_limits_too);
    RUN(an_unknown_host_tells_nothing);
    RUN(the_kernel_counts_whom_it_kills);
    RUN(this_host_tells);
    return check_done();
}
