/*
 * links.h - which nodes have a link that would hold a run up?
 *
 * Every node measures its link to the next one (probe.h); a node is known by the better of
 * the two links it is an end of, so one bad node spoils nobody else.  What is normal is the
 * median of this run's nodes: with fewer than LINKS_FEWEST there is none, and nothing is
 * judged.  Bad is less than a LINKS_IDLE-th of the median rate, or so many of its round trips
 * and 20 ms more; LINKS_BUSY where others train meanwhile.  Less than that is often chance.
 *
 * Pure.
 */
#ifndef SCHED_LINKS_H
#define SCHED_LINKS_H

#include <stdbool.h>
#include <stdint.h>

enum { LINKS_FEWEST = 3, LINKS_IDLE = 5, LINKS_BUSY = 20 };

struct link_speed {
    double rate, round_trip; /* bytes a second, seconds; rate 0: no link */
};

/* The better of both, member by member. */
struct link_speed links_better(struct link_speed a, struct link_speed b);

/* Medians, member by member, of those that have a link.  room: as many numbers. */
struct link_speed links_median(const struct link_speed *all, int32_t count, double *room);

bool links_is_bad(struct link_speed is, struct link_speed normal, int32_t times);

#endif
