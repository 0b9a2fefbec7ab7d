/* prom.c - Prometheus's text format. */
#include "base/prom.h"

#include <math.h>
#include <string.h>

void prom_metric(struct mem_text *out, const char *name, const char *help,
                 enum prom_type type)
{
    mem_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
               type == PROM_COUNTER ? "counter" : "gauge");
}

static void put_label(struct mem_text *out, const char *name, const char *value)
{
    mem_printf(out, "%s=\"", name);
    for (const char *c = value; *c; c++) {
        if (*c == '\n')
            mem_append(out, "\\n", 2);
        else
            mem_printf(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    }
    mem_append(out, "\"", 1);
}

void prom_sample(struct mem_text *out, const char *name, const char *run,
                 const char *label, const char *label_value, double value)
{
    mem_printf(out, "%s{", name);
    put_label(out, "run", run);
    if (label) {
        mem_append(out, ",", 1);
        put_label(out, label, label_value);
    }
    if (isfinite(value))
        mem_printf(out, "} %.12g\n", value);
    else
        mem_printf(out, "} %s\n", isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
}

void prom_put(struct mem_text *out, const char *name, const char *help,
              enum prom_type type, const char *run, double value)
{
    prom_metric(out, name, help, type);
    prom_sample(out, name, run, NULL, NULL, value);
}
