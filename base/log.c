/* log.c - one write per line. */
#include "base/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/launcher.h"

enum { LINE = 2048 };

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static struct {
    pthread_mutex_t lock;
    const char *program;
    int rank;
    bool ready, mute;
    enum log_level level;
    void (*sink)(enum log_level, const char *, void *);
    void *sink_arg;
} logger = { .lock = PTHREAD_MUTEX_INITIALIZER, .program = "kilorank", .rank = -1 };

static enum log_level level_from_environment(void)
{
    const char *text = getenv("KILORANK_LOG");

    for (int i = 0; text && i <= LOG_DEBUG; i++)
        if (strcmp(text, level_names[i]) == 0) return (enum log_level)i;
    return LOG_INFO;
}

void log_setup(const char *program, int rank)
{
    pthread_mutex_lock(&logger.lock);
    logger.program = program;
    logger.rank = rank;
    pthread_mutex_unlock(&logger.lock);
}

void log_mute(bool mute)
{
    pthread_mutex_lock(&logger.lock);
    logger.mute = mute;
    pthread_mutex_unlock(&logger.lock);
}

void log_mute_others(void)
{
    if (launcher_rank() > 0) log_mute(true);
}

void log_capture(void (*sink)(enum log_level, const char *text, void *arg), void *arg)
{
    pthread_mutex_lock(&logger.lock);
    logger.sink = sink;
    logger.sink_arg = arg;
    pthread_mutex_unlock(&logger.lock);
}

/* Append to line[LINE], cutting what does not fit; returns the new length. */
__attribute__((format(printf, 3, 0))) static size_t add(char *line, size_t len,
                                                        const char *fmt, va_list ap)
{
    int n = vsnprintf(line + len, LINE - len, fmt, ap);

    if (n < 0) return len;
    return len + (size_t)n < LINE - 1 ? len + (size_t)n : LINE - 2;
}

__attribute__((format(printf, 3, 4))) static size_t addf(char *line, size_t len,
                                                         const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    len = add(line, len, fmt, ap);
    va_end(ap);
    return len;
}

static size_t add_front(char *line, enum log_level level)
{
    static const char *const front[] = { "error: ", "warning: ", "", "debug: " };
    size_t len = logger.rank < 0 ? addf(line, 0, "%s: ", logger.program)
                                 : addf(line, 0, "%s[%d]: ", logger.program, logger.rank);

    return addf(line, len, "%s", front[level]);
}

/* Control characters would let hostile names break lines or terminals. */
static void tame(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127) *text = '?';
}

void log_vline(enum log_level level, const char *file, int line, const char *fmt,
               va_list ap)
{
    char text[LINE];
    size_t front, len;
    ssize_t put;

    pthread_mutex_lock(&logger.lock);
    if (!logger.ready) {
        logger.level = level_from_environment();
        logger.ready = true;
    }
    if (!logger.mute && (level <= logger.level || logger.sink)) {
        front = add_front(text, level);
        len = add(text, front, fmt, ap);
        if (logger.level == LOG_DEBUG) len = addf(text, len, " (%s:%d)", file, line);
        tame(text);
        if (logger.sink) logger.sink(level, text + front, logger.sink_arg);
        text[len] = '\n';
        if (level <= logger.level) put = write(STDERR_FILENO, text, len + 1), (void)put;
    }
    pthread_mutex_unlock(&logger.lock);
}

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_vline(level, file, line, fmt, ap);
    va_end(ap);
}
