/*
 * nccl.cpp - a libnccl.so.2 between emulated GPUs of one machine, over sockets.
 *
 * As the real one with blocking = 0: calls return before they have enqueued what they were
 * given (ncclInProgress), and it is an error to make another one before ncclCommGetAsyncError
 * says that they have; what is on a stream runs there, and holds the stream up until all of
 * its messages have come and gone, or the communicator is aborted.  A peer that is gone is
 * ncclRemoteError.  Messages carry their length, so that a mismatch is found.
 *
 * FAKE_NCCL=FAULT:RANK:N   mute   rank's N-th group on the stream sends nothing, for ever
 *                          error  it is an error that NCCL finds by itself
 *                          stuck  as mute, and ncclCommAbort never returns on any rank
 *                          alone  the rank never joins
 * FAKE_NCCL_VERSION        what ncclGetVersion says (22809)
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <nccl.h>

/* ---- what is there -------------------------------------------------------------------- */

struct fault {
    char kind[16];
    int rank, at;
};

/* Bytes to or from a peer. */
struct message {
    int peer;
    bool is_out;
    char *at;
    size_t bytes;
};

/* What one group does on the stream: messages, then sums. */
struct batch {
    ncclComm_t comm;
    cudaStream_t stream;
    std::vector<message> messages;
    std::vector<std::function<void()>> after;
    std::vector<std::vector<char>> rooms; /* of what is summed; stay where they are */
};

struct ncclComm {
    int rank, size;
    std::string name;
    std::vector<int> peers; /* sockets */
    std::thread joiner;
    std::atomic<ncclResult_t> state{ ncclInProgress };
    std::atomic<bool> aborted{ false };
    std::atomic<int> under_way{ 0 }; /* threads and batches that use this */
    int batches = 0;                 /* on the stream so far */
    fault bad;
    std::set<void *> known; /* registered memory */
    std::string last;
};

[[noreturn]] static void broken_rule(const char *why)
{
    fprintf(stderr, "fake NCCL: %s\n", why);
    abort();
}

static std::atomic<int> done_groups; /* of this process */

/* For tests: groups that streams have done. */
extern "C" int fakeNcclGroupsDone() { return done_groups; }

static void nap() { usleep(200); }

static ncclResult_t failed(ncclComm_t c, ncclResult_t r, const std::string &why)
{
    c->last = why;
    c->state = r;
    return r;
}

/* ---- joining -------------------------------------------------------------------------- */

static socklen_t address_of(const ncclComm_t c, int rank, sockaddr_un *a)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX; /* the first byte of the path is 0: not in the file system */
    const int len =
        snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "%s-%d", c->name.c_str(), rank);
    return (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + (size_t)len);
}

static bool call_peer(ncclComm_t c, int peer)
{
    sockaddr_un a;
    const socklen_t len = address_of(c, peer, &a);
    const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    while (!c->aborted) {
        if (connect(s, (sockaddr *)&a, len) == 0) {
            c->peers[(size_t)peer] = s;
            return write(s, &c->rank, sizeof c->rank) == sizeof c->rank;
        }
        nap();
    }
    close(s);
    return false;
}

static bool answer_peer(ncclComm_t c, int listener)
{
    pollfd p = { listener, POLLIN, 0 };
    int s, peer = -1;

    while (!c->aborted && poll(&p, 1, 5) <= 0)
        ;
    if (c->aborted || (s = accept(listener, NULL, NULL)) < 0) return false;
    if (recv(s, &peer, sizeof peer, MSG_WAITALL) != sizeof peer) return false;
    c->peers[(size_t)peer] = s;
    return true;
}

static void join(ncclComm_t c)
{
    sockaddr_un a;
    const socklen_t len = address_of(c, c->rank, &a);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = bind(listener, (sockaddr *)&a, len) == 0 && listen(listener, 64) == 0;

    if (strcmp(c->bad.kind, "alone") == 0 && c->bad.rank == c->rank)
        while (!c->aborted)
            nap();
    for (int r = 0; r < c->rank && ok; r++)
        ok = call_peer(c, r);
    for (int r = c->rank + 1; r < c->size && ok; r++)
        ok = answer_peer(c, listener);
    close(listener);
    if (ok)
        c->state = ncclSuccess;
    else
        failed(c, ncclSystemError, "ranks did not meet");
}

/* ---- messages ------------------------------------------------------------------------- */

/* One direction of the way to one peer. */
struct lane {
    std::deque<message> rest;
    size_t done = 0; /* of the length and the bytes of the first one */
};

/* Go on with the first message; false: the peer is gone. */
static bool move_some(int s, lane *l)
{
    message &m = l->rest.front();
    uint64_t length = m.bytes;
    const size_t head = sizeof length;
    char *at = l->done < head ? (char *)&length + l->done : m.at + (l->done - head);
    const size_t left = l->done < head ? head - l->done : head + m.bytes - l->done;
    uint64_t got = 0;
    ssize_t n;

    if (!m.is_out && l->done < head) at = (char *)&got;
    if (m.is_out)
        n = send(s, at, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        n = recv(s, at, l->done < head ? head : left,
                 MSG_DONTWAIT | (l->done < head ? MSG_PEEK : 0));
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0 && left > 0) return false;
    if (!m.is_out && l->done < head) { /* a length is read whole */
        if (n < (ssize_t)head) return true;
        if (got != length) broken_rule("a message of another length than expected");
        if (recv(s, &got, head, MSG_WAITALL) != (ssize_t)head) return false;
    }
    l->done += (size_t)n;
    if (l->done == head + m.bytes) {
        l->rest.pop_front();
        l->done = 0;
    }
    return true;
}

static bool pump(ncclComm_t c, std::vector<lane> *lanes)
{
    std::vector<pollfd> polls;
    std::vector<lane *> whose;

    for (;;) {
        polls.clear();
        whose.clear();
        for (int r = 0; r < c->size; r++)
            for (int out = 0; out < 2; out++) {
                lane *l = &(*lanes)[(size_t)(2 * r + out)];

                if (l->rest.empty()) continue;
                polls.push_back(
                    pollfd{ c->peers[(size_t)r], (short)(out ? POLLOUT : POLLIN), 0 });
                whose.push_back(l);
            }
        if (polls.empty()) return true;
        if (c->aborted) return false;
        poll(polls.data(), polls.size(), 5);
        for (size_t i = 0; i < polls.size(); i++)
            if (polls[i].revents && !move_some(polls[i].fd, whose[i])) {
                failed(c, ncclRemoteError, "a peer is gone");
                return false;
            }
    }
}

/* Messages of a rank to itself, in order. */
static void copy_own(const batch *b)
{
    std::deque<const message *> out;

    for (const message &m : b->messages)
        if (m.peer == b->comm->rank && m.is_out) out.push_back(&m);
    for (const message &m : b->messages) {
        if (m.peer != b->comm->rank || m.is_out) continue;
        if (out.empty() || out.front()->bytes != m.bytes)
            broken_rule("a message to oneself without its other end");
        memmove(m.at, out.front()->at, m.bytes);
        out.pop_front();
    }
}

/* The stream has come to a batch. */
static void run_batch(void *arg)
{
    batch *b = (batch *)arg;
    ncclComm_t c = b->comm;
    const bool bad = ++c->batches == c->bad.at && c->rank == c->bad.rank;
    std::vector<lane> lanes(2 * (size_t)c->size);

    if (bad && strcmp(c->bad.kind, "error") == 0)
        failed(c, ncclSystemError, "a link is down");
    else if (!bad || strcmp(c->bad.kind, "alone") == 0) {
        copy_own(b);
        for (const message &m : b->messages)
            if (m.peer != c->rank)
                lanes[(size_t)(2 * m.peer + m.is_out)].rest.push_back(m);
        if (pump(c, &lanes)) {
            for (auto &f : b->after)
                f();
            done_groups++;
            goto done;
        }
    }
    while (!c->aborted) /* a kernel that nobody stops */
        nap();
done:
    delete b;
    c->under_way--;
}

/* ---- groups --------------------------------------------------------------------------- */

static thread_local int depth;
static thread_local batch *open_batch;

/* On its way to the stream, some time later. */
static ncclResult_t send_off()
{
    batch *b = open_batch;
    ncclComm_t c;

    open_batch = NULL;
    if (!b) return ncclSuccess;
    c = b->comm;
    if (c->state != ncclSuccess) {
        delete b;
        return c->state == ncclInProgress
                   ? failed(c, ncclInvalidUsage, "a call before the last one was done")
                   : c->state.load();
    }
    c->state = ncclInProgress;
    c->under_way += 2;
    std::thread([=] {
        ncclResult_t now = ncclInProgress;

        nap();
        cudaLaunchHostFunc(b->stream, run_batch, b);
        c->state.compare_exchange_strong(now, ncclSuccess);
        c->under_way--;
    }).detach();
    return ncclInProgress;
}

static batch *open_for(ncclComm_t c, cudaStream_t s)
{
    if (!open_batch) {
        open_batch = new batch;
        open_batch->comm = c;
        open_batch->stream = s;
    }
    return open_batch;
}

static ncclResult_t added() { return depth == 0 ? send_off() : ncclSuccess; }

ncclResult_t ncclGroupStart() { return depth++, ncclSuccess; }
ncclResult_t ncclGroupEnd()
{
    if (depth == 0) return ncclInvalidUsage;
    return --depth == 0 ? send_off() : ncclSuccess;
}

/* ---- operations ----------------------------------------------------------------------- */

static size_t bytes_of(size_t count, ncclDataType_t type)
{
    return count * (type == ncclFloat64    ? 8
                    : type == ncclFloat32  ? 4
                    : type == ncclBfloat16 ? 2
                                           : 1);
}

static void put(batch *b, int peer, bool is_out, const void *at, size_t bytes)
{
    b->messages.push_back(message{ peer, is_out, (char *)(uintptr_t)at, bytes });
}

template <typename T> static void add_to(void *sum, const void *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((T *)sum)[i] += ((const T *)x)[i];
}

static void add(void *sum, const void *x, size_t count, ncclDataType_t type)
{
    if (type == ncclFloat32)
        add_to<float>(sum, x, count);
    else if (type == ncclFloat64)
        add_to<double>(sum, x, count);
    else
        broken_rule("a sum of another type than fp32 or fp64");
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t c, cudaStream_t s)
{
    put(open_for(c, s), peer, true, from, bytes_of(count, type));
    return added();
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t s)
{
    put(open_for(c, s), peer, false, to, bytes_of(count, type));
    return added();
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t c, cudaStream_t s)
{
    const size_t bytes = bytes_of(count, type);

    for (int r = 0; r < c->size; r++) {
        put(open_for(c, s), r, true, from, bytes);
        put(open_for(c, s), r, false, (char *)to + (size_t)r * bytes, bytes);
    }
    return added();
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type,
                           int root, ncclComm_t c, cudaStream_t s)
{
    for (int r = 0; r < c->size && c->rank == root; r++)
        put(open_for(c, s), r, true, from, bytes_of(count, type));
    put(open_for(c, s), root, false, to, bytes_of(count, type));
    return added();
}

/* to = the sum of what all have at `mine`, in the order of ranks from `first` on; theirs go
 * to each of them. */
static void sum_of_all(batch *b, const char *(*theirs)(const void *from, int r, size_t n),
                       const void *from, void *to, size_t count, ncclDataType_t type,
                       int first)
{
    ncclComm_t c = b->comm;
    const size_t bytes = bytes_of(count, type);
    std::vector<char *> rooms;

    for (int r = 0; r < c->size; r++) {
        b->rooms.emplace_back(bytes);
        rooms.push_back(b->rooms.back().data());
        put(b, r, true, theirs(from, r, bytes), bytes);
        put(b, r, false, rooms.back(), bytes);
    }
    b->after.push_back([=] {
        memcpy(to, rooms[(size_t)first], bytes);
        for (int i = 1; i < c->size; i++)
            add(to, rooms[(size_t)((first + i) % c->size)], count, type);
    });
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count,
                               ncclDataType_t type, ncclRedOp_t, ncclComm_t c,
                               cudaStream_t s)
{
    sum_of_all(
        open_for(c, s),
        [](const void *at, int r, size_t n) { return (const char *)at + (size_t)r * n; },
        from, to, count, type, (c->rank + 1) % c->size);
    return added();
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t c, cudaStream_t s)
{
    sum_of_all(
        open_for(c, s), [](const void *at, int, size_t) { return (const char *)at; },
        from, to, count, type, 0);
    return added();
}

/* ---- communicators -------------------------------------------------------------------- */

ncclResult_t ncclGetVersion(int *version)
{
    const char *text = getenv("FAKE_NCCL_VERSION");

    *version = text ? atoi(text) : 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int count;
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "kr-nccl-%d-%ld-%d", (int)getpid(),
             (long)t.tv_nsec, ++count);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t r)
{
    static const char *const texts[] = {
        "no error",
        "unhandled cuda error",
        "unhandled system error",
        "internal error",
        "invalid argument",
        "invalid usage",
        "remote process exited or there was a network error",
        "NCCL operation in progress"
    };

    return texts[r];
}

const char *ncclGetLastError(ncclComm_t c) { return c ? c->last.c_str() : ""; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    const char *text = getenv("FAKE_NCCL"), *threads = getenv("EMU_STREAMS");
    ncclComm_t c = new ncclComm;

    if (config->blocking != 0) broken_rule("a communicator that blocks");
    if (!threads || strcmp(threads, "1") != 0) broken_rule("EMU_STREAMS=1 is needed");
    c->rank = rank;
    c->size = size;
    c->name = id.internal;
    c->peers.assign((size_t)size, -1);
    c->bad = fault{ "", -1, 0 };
    if (text && sscanf(text, "%15[^:]:%d:%d", c->bad.kind, &c->bad.rank, &c->bad.at) < 2)
        broken_rule("FAKE_NCCL is not FAULT:RANK:N");
    c->joiner = std::thread(join, c);
    *out = c;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *now)
{
    *now = c->state;
    return ncclSuccess;
}

static void dispose(ncclComm_t c)
{
    while (c->under_way > 0)
        nap();
    if (c->joiner.joinable()) c->joiner.join();
    for (int s : c->peers)
        if (s >= 0) close(s);
    delete c;
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    if (c->state != ncclSuccess) return c->state;
    c->state = ncclInProgress;
    std::thread([=] {
        while (c->under_way > 0)
            nap();
        c->state = ncclSuccess;
    }).detach();
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (c->state == ncclInProgress) broken_rule("destroyed before it was final");
    if (!c->known.empty()) broken_rule("destroyed with memory still registered");
    dispose(c);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c)
{
    while (strcmp(c->bad.kind, "stuck") == 0)
        nap();
    c->aborted = true;
    dispose(c);
    return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t c, void *at, size_t, void **handle)
{
    if (!c->known.insert(at).second) broken_rule("memory registered twice");
    *handle = at;
    return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t c, void *handle)
{
    if (c->known.erase(handle) != 1) broken_rule("memory that is not registered");
    return ncclSuccess;
}
