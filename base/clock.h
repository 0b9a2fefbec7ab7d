/* clock.h - time.  Nothing that decides anything may use wall time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

double clock_now(void);           /* seconds, monotonic, arbitrary origin */
double clock_wall(void);          /* seconds since 1970, for people and log files */
void clock_sleep(double seconds); /* resumes after signals */

#endif
