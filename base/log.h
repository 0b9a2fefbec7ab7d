/*
 * log.h - one line per message on stderr, with the program and the rank in front.
 *
 *   kilorank[3]: warning: step-00000100: shard-002.h5 is 4096 bytes short
 *
 * Levels: LOG_ERROR < LOG_WARN < LOG_INFO < LOG_DEBUG; the environment variable
 * KILORANK_LOG=error|warn|info|debug sets the level, the default is info.  At debug
 * each line also carries file:line.  A line is written with one write(2), so lines
 * of ranks and threads that share a terminal do not mix.  Any thread may log.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Name shown in front and this process's rank; rank < 0 shows none.  Before the first
 * call: "kilorank", no rank.  `program` is not copied. */
void log_setup(const char *program, int rank);

/* Say nothing from here on (true) or again (false): for work that every rank does alike
 * and rank 0 reports on. */
void log_mute(bool mute);

/* The same for all but the first of the processes that one launcher started; its
 * environment tells which this is, before MPI does. */
void log_mute_others(void);

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void log_vline(enum log_level level, const char *file, int line, const char *fmt,
               va_list ap);

#define LOG_WARNING(...) log_line(LOG_WARN, __FILE__, __LINE__, __VA_ARGS__)
#define LOG_NOTE(...)    log_line(LOG_INFO, __FILE__, __LINE__, __VA_ARGS__)
#define LOG_TRACE(...)   log_line(LOG_DEBUG, __FILE__, __LINE__, __VA_ARGS__)

/* Tests: every line at or above the level also goes to `sink` (NULL: no longer). */
void log_capture(void (*sink)(enum log_level, const char *text, void *arg), void *arg);

#endif
