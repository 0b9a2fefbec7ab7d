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
        sup_take_back(s, (int32_t)(old - s->nodes.at));
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

    if (!s->config->hostfile || now - read_at < hosts_seconds) return;
    read_at = now;
    if (!fs_exists(s->config->hostfile) ||
        fs_read_all(s->config->hostfile, &text, &bytes, 1 << 20) != KR_OK)
        return;
    if (nodes_parse(&again, text, s->config->hostfile) == KR_OK) {
        for (int32_t i = 0; i < again.count; i++)
            add_host(s, &again.at[i]);
        for (int32_t i = 0; i < s->nodes.count; i++)
            if (!nodes_find(&again, sup_name(s, i)))
                sup_give_up(s, i, "it left the host file");
    }
    nodes_free(&again);
    mem_free(text);
}

/* ---- nodes that somebody wants back -------------------------------------------------- */

void sup_give_up(struct sup *s, int32_t node, const char *why)
{
    struct node *n = &s->nodes.at[node];

    if (n->state == NODE_GONE) return;
    n->state = NODE_GONE;
    sup_note(s, node, "%s", why);
    sup_record_node(s, node, "gone", why);
    LOG_NOTE("%s: %s", n->name, why);
}

void sup_take_back(struct sup *s, int32_t node)
{
    s->nodes.at[node].state = s->seats[node].link ? NODE_UP : NODE_AWAY;
    s->seats[node].tries = 0;
    s->seats[node].next = 0;
}

/* Ranks save and move, then the agent leaves. */
void sup_leave_gone(struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++) {
        struct link *l = s->seats[i].link;

        if (s->nodes.at[i].state != NODE_GONE) continue;
        if (s->nodes.at[i].ranks > 0 && s->phase == SUP_RUN)
            sup_regroup(s, "a node with ranks is to be left");
        else if (s->nodes.at[i].ranks == 0 && l)
            link_say(l, WIRE_LEAVE, 0, "");
    }
}

/* ---- the way to the hosts ------------------------------------------------------------ */

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
