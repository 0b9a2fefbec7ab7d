/* settings_together.c - all ranks were started alike. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "comm/comm.h"
#include "trainer/run/settings.h"

/* Settings come from each node's own files and environment.  Each rank but the first tells
 * where it differs from the first one. */
static kr_status same_everywhere(const struct settings *s, struct comm *c)
{
    bool is_first = comm_rank(c) == 0;
    char *text = is_first ? cfg_print(settings_table, s) : NULL, mine[32];
    struct settings first;
    kr_status st = KR_OK;

    if (is_first && !text) st = KR_FAIL(KR_ERR_MEM, "no memory for the settings");
    TRY(comm_agree(c, st));
    TRY_OR(st, comm_share_text(c, &text), done);
    if (!is_first) {
        snprintf(mine, sizeof mine, "rank %d", comm_rank(c));
        st = cfg_defaults(settings_table, &first);
        if (st == KR_OK) st = cfg_read_text(settings_table, &first, text, "rank 0");
        if (st == KR_OK && cfg_diff(settings_table, s, &first, mine, "rank 0",
                                    "all ranks must be started alike") > 0)
            st = KR_ERR_ARG;
    }
    st = comm_agree(c, st);
done:
    mem_free(text);
    return st;
}

/* With run.device = auto each rank drives what its program and its node have. */
static kr_status same_device(const struct settings *s, struct comm *c)
{
    char mine[sizeof s->device] = "", first[sizeof mine];
    kr_status st = KR_OK;

    snprintf(mine, sizeof mine, "%s", settings_device(s));
    memcpy(first, mine, sizeof first);
    TRY(comm_share(c, first, sizeof first));
    if (strcmp(mine, first) != 0)
        st = KR_FAIL(KR_ERR_ARG,
                     "rank %d (node %s) has device %s, rank 0 %s: all ranks must drive "
                     "the same kind; set run.device, or leave out nodes without GPUs",
                     comm_rank(c), comm_node_name(c), mine, first);
    return comm_agree(c, st);
}

kr_status settings_check_together(const struct settings *s, struct comm *c)
{
    TRY(same_everywhere(s, c));
    TRY(same_device(s, c));
    return comm_agree(c, comm_rank(c) == 0 ? settings_check(s, comm_size(c)) : KR_OK);
}
