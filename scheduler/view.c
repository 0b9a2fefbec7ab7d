/* view.c - what `kilorank status` shows. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/prom.h"
#include "scheduler/json.h"
#include "scheduler/pulse.h"
#include "scheduler/supervisor.h"
#include "scheduler/view.h"

static double rate(const struct sup *s)
{
    double step = watch_step_median(&s->watch);

    return step > 0 ? 1 / step : 0;
}

static const char *role(const struct node *n)
{
    return n->ranks > 0 ? "ranks" : n->state == NODE_UP ? "spare" : "none";
}

static double silence(const struct sup *s, int32_t node, double now)
{
    return s->watch.heard[node] < 0 ? -1 : now - s->watch.heard[node];
}

static void json_nodes(const struct sup *s, double now, struct mem_text *t)
{
    json_open_array(t, "nodes");
    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct node *n = &s->nodes.at[i];

        json_open(t, NULL);
        json_text(t, "name", n->name);
        json_text(t, "state", node_state_text(n->state));
        json_text(t, "role", role(n));
        json_int(t, "first_rank", n->first);
        json_int(t, "ranks", n->ranks);
        json_int(t, "faults", n->faults);
        if (s->seats[i].link) json_int(t, "agent_pid", s->seats[i].hello.pid);
        json_real(t, "heard_s", silence(s, i, now));
        json_text(t, "trouble", s->seats[i].trouble);
        json_close(t, '}');
    }
    json_close(t, ']');
}

static void json_ranks(const struct sup *s, double now, struct mem_text *t)
{
    json_open_array(t, "ranks_now");
    for (int32_t i = 0; i < s->watch.size; i++) {
        const struct watch_rank *r = &s->watch.ranks[i];

        if (r->node < 0) continue;
        json_open(t, NULL);
        json_int(t, "rank", i);
        json_text(t, "node", s->nodes.at[r->node].name);
        json_int(t, "pid", r->last.pid);
        json_int(t, "step", r->last.step);
        json_text(t, "phase", pulse_phase_text(r->last.phase));
        json_real(t, "quiet_s", now - r->moved);
        json_int(t, "entered", (int64_t)r->last.entered);
        json_int(t, "left", (int64_t)r->last.left);
        json_real(t, "compute_s", r->last.compute_seconds);
        json_real(t, "wait_s", r->last.wait_seconds);
        json_int(t, "snapshot_step", r->last.snapshot_step);
        json_bool(t, "slow", r->is_slow);
        json_close(t, '}');
    }
    json_close(t, ']');
}

void view_json(const struct sup *s, struct mem_text *out)
{
    double now = clock_now();

    json_open(out, NULL);
    json_text(out, "state", s->stop ? "stopping" : sup_phase_text(s->phase));
    json_text(out, "run", s->config->run);
    json_int(out, "generation", s->generation);
    json_int(out, "ranks", s->ranks);
    json_int(out, "ranks_wanted", s->config->ranks);
    json_int(out, "step", s->watch.step);
    json_int(out, "furthest_step", s->furthest);
    json_real(out, "step_s", watch_step_median(&s->watch));
    json_real(out, "loss", s->watch.loss);
    json_int(out, "faults", s->faults);
    json_text(out, "last_fault", s->fault_why);
    json_int(out, "attempts", s->attempts);
    json_real(out, "uptime_s", now - s->began);
    json_int(out, "spares", nodes_spare(&s->nodes));
    json_text(out, "head", s->head >= 0 ? s->nodes.at[s->head].name : "");
    json_nodes(s, now, out);
    json_ranks(s, now, out);
    json_close(out, '}');
    mem_printf(out, "\n");
}

static void text_nodes(const struct sup *s, double now, struct mem_text *t)
{
    mem_printf(t, "\n  %-24s %-5s %-6s %-11s %s\n", "node", "state", "role", "ranks",
               "last heard");
    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct node *n = &s->nodes.at[i];
        double quiet = silence(s, i, now);

        mem_printf(t, "  %-24s %-5s %-6s ", n->name, node_state_text(n->state), role(n));
        if (n->ranks > 0)
            mem_printf(t, "%5d-%-5d ", n->first, n->first + n->ranks - 1);
        else
            mem_printf(t, "%-11s ", "");
        if (quiet >= 0)
            mem_printf(t, "%.1f s ago", quiet);
        else
            mem_append(t, s->seats[i].trouble, strlen(s->seats[i].trouble));
        mem_printf(t, "%s", "\n");
    }
}

static void text_ranks(const struct sup *s, double now, struct mem_text *t)
{
    mem_printf(t, "\n  %4s %-24s %8s %-10s %10s %10s %8s\n", "rank", "node", "step",
               "phase", "compute s", "wait s", "quiet s");
    for (int32_t i = 0; i < s->watch.size; i++) {
        const struct watch_rank *r = &s->watch.ranks[i];

        if (r->node < 0) continue;
        mem_printf(t, "  %4d %-24s %8" PRId64 " %-10s %10.3g %10.3g %8.1f%s\n", i,
                   s->nodes.at[r->node].name, r->last.step,
                   pulse_phase_text(r->last.phase), r->last.compute_seconds,
                   r->last.wait_seconds, now - r->moved, r->is_slow ? "  slow" : "");
    }
}

void view_text(const struct sup *s, struct mem_text *out)
{
    double now = clock_now();

    mem_printf(out,
               "%s: generation %" PRId64 ", step %" PRId64 ", %d of %d ranks, %d spare\n",
               s->stop ? "stopping" : sup_phase_text(s->phase), s->generation,
               s->watch.step, s->ranks, s->config->ranks, nodes_spare(&s->nodes));
    if (rate(s) > 0)
        mem_printf(out, "%.3g steps/s, loss %.4f, up %.0f s\n", rate(s), s->watch.loss,
                   now - s->began);
    mem_printf(out, "%d faults%s%s\n", s->faults, s->faults ? "; the last: " : "",
               s->fault_why);
    text_nodes(s, now, out);
    if (s->watch.size > 0) text_ranks(s, now, out);
}

/* ---- Prometheus --------------------------------------------------------------------- */

static void prometheus_nodes(const struct sup *s, struct mem_text *t)
{
    static const struct {
        const char *name, *help;
        enum prom_type type;
    } metrics[] = {
        { "kilorank_node_up", "Its agent is connected and its check was passed.",
          PROM_GAUGE },
        { "kilorank_node_ranks", "Ranks on it.", PROM_GAUGE },
        { "kilorank_node_faults_total", "Faults that it took part in.", PROM_COUNTER },
    };

    for (int k = 0; k < 3; k++) {
        prom_metric(t, metrics[k].name, metrics[k].help, metrics[k].type);
        for (int32_t i = 0; i < s->nodes.count; i++) {
            const struct node *n = &s->nodes.at[i];
            const double values[] = { n->state == NODE_UP, n->ranks, n->faults };

            prom_sample(t, metrics[k].name, s->config->run, "node", n->name, values[k]);
        }
    }
}

void view_life(struct mem_text *out, const char *run, bool is_supervised, int64_t step,
               int64_t faults)
{
    prom_put(out, "kilorank_supervised", "A supervisor watches the run.", PROM_GAUGE, run,
             is_supervised);
    prom_put(out, "kilorank_furthest_step", "Furthest step that was done.", PROM_COUNTER,
             run, (double)step);
    prom_put(out, "kilorank_faults_total", "Faults in the life of the run.", PROM_COUNTER,
             run, (double)faults);
}

void view_prometheus(const struct sup *s, struct mem_text *out)
{
    const char *run = s->config->run;

    view_life(out, run, true, s->furthest, s->faults);
    prom_put(out, "kilorank_training", "Its ranks train; 0 while it recovers.",
             PROM_GAUGE, run, s->phase == SUP_RUN);
    prom_put(out, "kilorank_generation", "Starts of the ranks.", PROM_COUNTER, run,
             (double)s->generation);
    prom_put(out, "kilorank_ranks_running", "Ranks of this generation.", PROM_GAUGE, run,
             s->ranks);
    prom_put(out, "kilorank_ranks_wanted", "Ranks asked for.", PROM_GAUGE, run,
             s->config->ranks);
    prom_put(out, "kilorank_spare_nodes", "Nodes that wait.", PROM_GAUGE, run,
             nodes_spare(&s->nodes));
    prometheus_nodes(s, out);
}
