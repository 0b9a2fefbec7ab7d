/*
 * prom.h - metrics in Prometheus's text format (version 0.0.4), as node_exporter's textfile
 * collector and Prometheus itself read it.
 *
 *   prom_metric(&t, "kilorank_step", "Steps done.", PROM_COUNTER);
 *   prom_sample(&t, "kilorank_step", run, NULL, NULL, 300);
 *
 * Every sample carries the label run; at most one more, such as a node.  One check of
 * mem_text's `failed` at the end is enough.
 */
#ifndef BASE_PROM_H
#define BASE_PROM_H

#include "base/mem.h"

enum prom_type { PROM_GAUGE, PROM_COUNTER };

void prom_metric(struct mem_text *out, const char *name, const char *help,
                 enum prom_type type);

/* label NULL: the run's label only. */
void prom_sample(struct mem_text *out, const char *name, const char *run,
                 const char *label, const char *label_value, double value);

/* A metric that has one sample. */
void prom_put(struct mem_text *out, const char *name, const char *help,
              enum prom_type type, const char *run, double value);

#endif
