/* mpirun.c - how Open MPI is told to start ranks through the agents. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/supervisor.h"

extern char **environ;

static void word(struct mem_text *t, const char *text)
{
    mem_append(t, text, strlen(text) + 1);
}

static kr_status as_list(const struct mem_text *t, struct wire_list *out)
{
    if (t->failed) return KR_FAIL(KR_ERR_MEM, "no memory for a command line");
    *out = (struct wire_list){ t->at, (uint32_t)t->len };
    return KR_OK;
}

/* "n1:2,n2:2": the order is the order of ranks. */
static void hosts(const struct sup *s, struct mem_text *t)
{
    static int32_t order[NODES_MAX];
    int32_t count = nodes_active(&s->nodes, order);

    for (int32_t i = 0; i < count; i++) {
        const struct node *n = &s->nodes.at[order[i]];

        mem_printf(t, "%s%s:%d", i > 0 ? "," : "", n->name, n->ranks);
    }
    mem_append(t, "", 1);
}

kr_status mpirun_line(struct sup *s, struct wire_list *out)
{
    /* Daemons stay children of the agents and die with them; a silent peer is noticed in
     * 5 s, not in 8 minutes; no batch system has a say in what runs where. */
    static const char *const usual[] = {
        "--leave-session-attached",
        "--map-by",
        "slot",
        "--bind-to",
        "none",
        "-mca",
        "plm",
        "rsh",
        "-mca",
        "plm_rsh_no_tree_spawn",
        "1",
        "-mca",
        "ras",
        "^slurm,tm,gridengine,lsf,loadleveler",
        "-mca",
        "oob_tcp_keepalive_time",
        "2",
        "-mca",
        "oob_tcp_keepalive_intvl",
        "1",
        "-mca",
        "oob_tcp_keepalive_probes",
        "3",
    };
    struct mem_text *t = &s->text;

    t->len = 0;
    word(t, "mpirun");
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        word(t, usual[i]);
    word(t, "-mca"), word(t, "plm_rsh_agent");
    mem_printf(t, "%s rsh", s->config->program), mem_append(t, "", 1);
    word(t, "-wdir"), word(t, s->config->folder);
    word(t, "--host"), hosts(s, t);
    word(t, "-np"), mem_printf(t, "%d", s->ranks), mem_append(t, "", 1);
    word(t, s->config->program), word(t, "train");
    for (int i = 0; s->config->train[i]; i++)
        word(t, s->config->train[i]);
    return as_list(t, out);
}

/* Variables that libraries of the ranks obey, so that they mean the same on every node. */
static bool is_shared(const char *variable)
{
    static const char *const fronts[] = { "OMPI_", "PMIX_",           "UCX_",
                                          "NCCL_", "CUDA_",           "OMP_",
                                          "GOMP_", "OPENBLAS_",       "KILORANK_",
                                          "PATH=", "LD_LIBRARY_PATH=" };
    static const char *const own[] = { "KILORANK_PULSE=", "KILORANK_GENERATION=",
                                       "KILORANK_NODE=", "KILORANK_SUPERVISED=",
                                       "KILORANK_CHECK_FAULT=" };

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strncmp(variable, own[i], strlen(own[i])) == 0) return false;
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++)
        if (strncmp(variable, fronts[i], strlen(fronts[i])) == 0) return true;
    return false;
}

kr_status mpirun_environment(struct sup *s, struct wire_list *out)
{
    s->text.len = 0;
    mem_append(&s->text, "", 0);
    for (int i = 0; environ[i]; i++)
        if (is_shared(environ[i])) word(&s->text, environ[i]);
    return as_list(&s->text, out);
}
