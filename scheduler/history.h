/*
 * history.h - nodes that failed in earlier runs of this user.
 *
 * A few bad nodes cause most of the trouble of a cluster, and come back in every run.  Each
 * loss of a node, failed check and device failure is a line "SECONDS NODE WHAT" at the end of
 * $XDG_STATE_HOME/kilorank/nodes (~/.local/state without it); a node with HISTORY_MANY lines
 * among the newest HISTORY_BYTES is used last, and named.  Delete the file, or its lines, once
 * a node was repaired.  Not to be had is not to be missed: nothing fails for want of it.
 */
#ifndef SCHED_HISTORY_H
#define SCHED_HISTORY_H

#include "scheduler/nodes.h"

enum { HISTORY_MANY = 3, HISTORY_BYTES = 64 << 10 };

void history_add(const char *node, const char *what);

/* Give nodes with many lines that many faults, so that they are the last to be placed. */
void history_warn(struct nodes *n);

/* Lines of text that name the node.  Pure. */
int32_t history_count(const char *text, const char *node);

#endif
