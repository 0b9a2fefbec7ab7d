/* hosts.c - the host file while the run goes on, and the way to the hosts. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/supervisor.h"

static const double hosts_seconds = 5;

/* ---- the host file, again ----------------------------------------------------------- */

static void add_host(struct sup *s, const struct node *new)
{
    struct node *old = nodes_find(&s->nodes, new->name);

    if (old && old->state != NODE_GONE) return;
    if (old)
        old->state = NODE_AWAY;
    else if (nodes_add(&s->nodes, new->name, new->slots) != KR_OK)
        return;
    LOG_NOTE("the host file has a new node: %s", new->name);
}

/* New names join; nodes that left it lose their ranks at the next step boundary. */
void sup_read_hosts(struct sup *s)
{
    static double read_at;
    double now = clock_now();
    struct nodes again = { 0 };
    char *text = NULL;
    size_t bytes;
    bool lost_ranks = false;

    if (!s->config->hostfile || now - read_at < hosts_seconds) return;
    read_at = now;
    if (!fs_exists(s->config->hostfile) ||
        fs_read_all(s->config->hostfile, &text, &bytes, 1 << 20) != KR_OK)
        return;
    if (nodes_parse(&again, text, s->config->hostfile) == KR_OK) {
        for (int32_t i = 0; i < again.count; i++)
            add_host(s, &again.at[i]);
        for (int32_t i = 0; i < s->nodes.count; i++) {
            struct node *n = &s->nodes.at[i];

            if (n->state == NODE_GONE || nodes_find(&again, n->name)) continue;
            LOG_NOTE("the host file has lost %s", n->name);
            n->state = NODE_GONE;
            lost_ranks |= n->ranks > 0;
        }
    }
    if (lost_ranks && s->phase == SUP_RUN) sup_regroup(s, "a node left the host file");
    nodes_free(&again);
    mem_free(text);
}

/* The own address of a way to the host; false: its name is unknown, or it is this one. */
static bool find_way(const char *name, char host[64])
{
    struct addrinfo want = { .ai_socktype = SOCK_DGRAM }, *at = NULL;
    struct sockaddr_storage own = { 0 };
    socklen_t len = sizeof own;
    bool found;
    int fd;

    if (getaddrinfo(name, "9", &want, &at) != 0) return false;
    fd = socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    found =
        fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        getsockname(fd, (struct sockaddr *)&own, &len) == 0 &&
        getnameinfo((struct sockaddr *)&own, len, host, 64, NULL, 0, NI_NUMERICHOST) == 0;
    if (fd >= 0) close(fd);
    freeaddrinfo(at);
    return found && strncmp(host, "127.", 4) != 0 && strcmp(host, "::1") != 0;
}

/* The address of this host from which the first other one is reached. */
void sup_find_address(const struct sup *s, char host[64])
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (!s->config->bind && s->config->start != SUP_FORK &&
            find_way(s->nodes.at[i].name, host))
            return;
    snprintf(host, 64, "%s", s->config->bind ? s->config->bind : "127.0.0.1");
}
