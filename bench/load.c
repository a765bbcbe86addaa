/* A load generator over keep-alive connections: closed loop, or an open loop at a fixed rate.
 *
 *   load PORT CONNECTIONS SECONDS RATE BODY_FILE STREAM PATH [HEADER...]
 *
 * RATE 0 is the closed loop: each connection sends its next request when its last is answered. With a rate, a request's
 * time counts from when it was due, not from when a connection was free, so that a stall is not hidden (coordinated
 * omission). STREAM 1 expects server-sent events that end in [DONE] and carry their sending time as <ns>. Prints JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 8192, BUFFER = 1 << 17, SAMPLES = 1 << 23 };

struct connection {
    int fd, busy, filled, scanned, head, status, done;
    long length; /* of head and body; -1: unknown; -2: chunked */
    uint64_t began;
    char *buffer;
};

struct samples {
    uint32_t *of; /* tenths of microseconds */
    long count;
};

static struct connection connections[MAX_CONNECTIONS];
static struct samples whole, chunks;
static long good, bad, reconnected, events;
static int total, poll_fd, port, streaming;
static char *request, complaint[300];
static size_t request_size;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sample(struct samples *s, uint64_t ns) {
    if (s->count < SAMPLES) s->of[s->count++] = (uint32_t)(ns / 100);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double quantile_ms(struct samples *s, double q) {
    return s->count ? s->of[(long)((double)(s->count - 1) * q)] / 10000.0 : 0.0;
}

static void dial(struct connection *c) {
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        perror("load: connect");
        exit(1);
    }
    struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = (uint32_t)(c - connections)};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &wanted);
    c->busy = c->filled = 0;
}

static void fire(struct connection *c, uint64_t due) {
    c->busy = 1;
    c->filled = c->scanned = c->head = c->status = c->done = 0;
    c->length = -1;
    c->began = due;
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) {
        c->busy = 0;
        bad++;
    }
}

static void finish(struct connection *c) {
    c->busy = 0;
    if (c->status == 200 && (!streaming || c->done)) {
        good++;
        sample(&whole, now_ns() - c->began);
        return;
    }
    bad++;
    if (!complaint[0]) snprintf(complaint, sizeof complaint, "%.*s", c->filled, c->buffer);
}

static void scan_events(struct connection *c) {
    char *at = c->buffer + c->scanned, *end = c->buffer + c->filled, *line;
    uint64_t now = now_ns();
    while ((line = memmem(at, (size_t)(end - at), "data: ", 6))) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) break;
        if (!strncmp(line + 6, "[DONE]", 6)) {
            c->done = 1;
        } else {
            events++;
            char *stamp = memmem(line, (size_t)(stop - line), " <", 2);
            uint64_t sent = 0;
            for (char *letter = stamp ? stamp + 2 : stop; letter < stop && *letter >= 'a' && *letter <= 'p'; letter++)
                sent = sent << 4 | (uint64_t)(*letter - 'a');
            if (sent && now > sent) sample(&chunks, now - sent);
        }
        at = stop + 1;
    }
    c->scanned = (int)((line ? line : at) - c->buffer);
    if (c->scanned > BUFFER / 2) { /* keep the last bytes: the end of the chunked body is looked for there */
        int keep = c->filled - c->scanned + 16;
        memmove(c->buffer, c->buffer + c->filled - keep, (size_t)keep);
        c->filled = keep;
        c->scanned = 16;
    }
}

static int read_head(struct connection *c) {
    char *gap = memmem(c->buffer, (size_t)c->filled, "\r\n\r\n", 4);
    if (!gap) return 0;
    c->head = c->scanned = (int)(gap - c->buffer) + 4;
    c->status = atoi(c->buffer + 9);
    for (char *line = c->buffer; line && line < gap; line = memchr(line, '\n', (size_t)(gap - line)), line += line != NULL) {
        if (!strncasecmp(line, "content-length:", 15)) c->length = c->head + atol(line + 15);
        if (!strncasecmp(line, "transfer-encoding:", 18)) c->length = -2;
    }
    return 1;
}

static void receive(struct connection *c, int closed_loop) {
    ssize_t n = recv(c->fd, c->buffer + c->filled, (size_t)(BUFFER - c->filled), 0);
    if (n <= 0) {
        if (c->busy) {
            if (c->head && c->length == -1) finish(c); /* a body that ends with its connection */
            else {
                bad++;
                if (!complaint[0]) snprintf(complaint, sizeof complaint, "closed within a reply: %.*s", c->filled, c->buffer);
            }
        }
        close(c->fd);
        reconnected++;
        dial(c);
        if (closed_loop) fire(c, now_ns());
        return;
    }
    c->filled += (int)n;
    if (!c->busy || (!c->head && !read_head(c))) return;
    if (streaming) scan_events(c);
    int ended = c->length >= 0    ? c->filled >= c->length
                : c->length == -2 ? c->filled >= 5 && !memcmp(c->buffer + c->filled - 5, "0\r\n\r\n", 5)
                                  : 0;
    if (!ended) return;
    finish(c);
    if (closed_loop) fire(c, now_ns());
}

int main(int argc, char **argv) {
    if (argc < 8) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS RATE BODY_FILE STREAM PATH [HEADER...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]);
    total = atoi(argv[2]);
    double seconds = atof(argv[3]), rate = atof(argv[4]);
    streaming = atoi(argv[6]);
    if (total < 1 || total > MAX_CONNECTIONS) return 2;
    FILE *file = fopen(argv[5], "rb");
    if (!file) {
        perror(argv[5]);
        return 1;
    }
    char *body = malloc(1 << 20);
    size_t body_size = fread(body, 1, 1 << 20, file);
    fclose(file);
    request = malloc(body_size + (1 << 14));
    int n = sprintf(request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n",
                    argv[7], port, body_size);
    for (int i = 8; i < argc; i++) n += snprintf(request + n, 4096, "%s\r\n", argv[i]);
    n += sprintf(request + n, "\r\n");
    memcpy(request + n, body, body_size);
    request_size = (size_t)n + body_size;
    whole.of = malloc(SAMPLES * sizeof *whole.of);
    chunks.of = malloc(SAMPLES * sizeof *chunks.of);
    poll_fd = epoll_create1(0);
    for (int i = 0; i < total; i++) {
        connections[i].buffer = malloc(BUFFER + 1);
        dial(&connections[i]);
    }
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), due = start;
    long issued = 0;
    int turn = 0, timer = -1;
    if (rate > 0) {
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        struct itimerspec each = {{0, 500000}, {0, 500000}};
        timerfd_settime(timer, 0, &each, NULL);
        struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = MAX_CONNECTIONS};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer, &wanted);
    } else {
        for (int i = 0; i < total; i++) fire(&connections[i], now_ns());
    }
    struct epoll_event ready[512];
    while (now_ns() < end) {
        int count = epoll_wait(poll_fd, ready, 512, 100);
        for (int i = 0; i < count; i++) {
            uint64_t ticks;
            if (ready[i].data.u32 < MAX_CONNECTIONS) receive(&connections[ready[i].data.u32], rate <= 0);
            else if (read(timer, &ticks, sizeof ticks) < 0) continue;
        }
        while (rate > 0 && due <= now_ns()) {
            int tried = 0;
            while (tried < total && connections[turn].busy) {
                turn = (turn + 1) % total;
                tried++;
            }
            if (tried == total) break; /* all are busy: the request stays due, and its time runs */
            fire(&connections[turn], due);
            turn = (turn + 1) % total;
            due = start + (uint64_t)((double)++issued * 1e9 / rate);
        }
    }
    double took = (double)(now_ns() - start) / 1e9;
    qsort(whole.of, (size_t)whole.count, sizeof *whole.of, compare);
    qsort(chunks.of, (size_t)chunks.count, sizeof *chunks.of, compare);
    printf("{\"good\":%ld,\"bad\":%ld,\"reconnected\":%ld,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"events\":%ld,"
           "\"chunk_p50_ms\":%.3f,\"chunk_p99_ms\":%.3f}\n",
           good, bad, reconnected, took, quantile_ms(&whole, .5), quantile_ms(&whole, .99), events, quantile_ms(&chunks, .5),
           quantile_ms(&chunks, .99));
    if (complaint[0]) fprintf(stderr, "first bad reply: %s\n", complaint);
    return 0;
}
