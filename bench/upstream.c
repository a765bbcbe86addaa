/* A mock OpenAI upstream that costs next to nothing, so that a benchmark measures what stands in front of it.
 *
 *   upstream PORT INTERVAL_US EVENTS
 *
 * A POST is answered with a chat completion of about 600 bytes, or, when its body holds "stream":true, with EVENTS
 * server-sent events, one every INTERVAL_US, each carrying the sender's monotonic clock as <ns>; then usage and [DONE].
 * GET /stats tells what was served and how many streams their readers left. One thread, epoll, no allocation per request.
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

enum { MAX_FD = 32768, BUFFER = 1 << 16 };

struct connection {
    int fd, filled, streaming, sent;
    uint64_t due;
    struct connection *next, *previous; /* ring of those that stream */
    char buffer[BUFFER + 1];
};

static struct connection *connections[MAX_FD];
static struct connection ring = {.next = &ring, .previous = &ring};
static uint64_t interval_ns;
static int events_per_stream;
static unsigned long replies, streams, finished, aborted;
static char reply[2048];
static size_t reply_size;

static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" <%s>\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char LAST[] =
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"mock\","
    "\"choices\":[],\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":100,\"total_tokens\":356}}\n\n"
    "data: [DONE]\n\n";

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The time as a word: a letter for each four bits. Digits would look like card numbers to rules that look for these. */
static void stamp(char word[17]) {
    uint64_t time = now_ns();
    for (int i = 15; i >= 0; i--, time >>= 4) word[i] = (char)('a' + (time & 15));
    word[16] = 0;
}

static void leave_ring(struct connection *c) {
    c->previous->next = c->next;
    c->next->previous = c->previous;
    c->streaming = 0;
}

static void drop(struct connection *c) {
    if (c->streaming) {
        leave_ring(c);
        aborted++;
    }
    connections[c->fd] = NULL;
    close(c->fd);
    free(c);
}

static int send_all(struct connection *c, const char *data, size_t size) {
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    return n < 0 && errno != EAGAIN ? -1 : 0; /* a reader slower than loopback's buffers is not part of the load */
}

static int send_chunk(struct connection *c, const char *data, int size) {
    char framed[1024];
    int n = snprintf(framed, sizeof framed, "%x\r\n%.*s\r\n", size, size, data);
    return send_all(c, framed, (size_t)n);
}

static int emit(struct connection *c) {
    if (c->sent < events_per_stream) {
        char event[512], word[17];
        stamp(word);
        int n = snprintf(event, sizeof event, EVENT, word);
        c->sent++;
        return send_chunk(c, event, n);
    }
    leave_ring(c);
    finished++;
    if (send_chunk(c, LAST, (int)sizeof LAST - 1)) return -1;
    return send_all(c, "0\r\n\r\n", 5);
}

static const char *field(const char *head, const char *end, const char *name) {
    size_t size = strlen(name);
    for (const char *line = head; line < end; line++) {
        if (!strncasecmp(line, name, size)) return line + size;
        line = memchr(line, '\n', (size_t)(end - line));
        if (!line) break;
    }
    return NULL;
}

/* Answers the first whole request in the buffer. Returns its size, 0 if it is not whole yet, -1 on a broken connection. */
static int answer(struct connection *c) {
    c->buffer[c->filled] = 0;
    char *gap = memmem(c->buffer, (size_t)c->filled, "\r\n\r\n", 4);
    if (!gap) return 0;
    int head = (int)(gap - c->buffer) + 4, size = head;
    const char *length = field(c->buffer, gap, "content-length:");
    if (length) {
        size += atoi(length);
    } else if (field(c->buffer, gap, "transfer-encoding:")) {
        char *end = memmem(c->buffer + head - 2, (size_t)(c->filled - head + 2), "\r\n0\r\n\r\n", 7);
        if (!end) return 0;
        size = (int)(end - c->buffer) + 7;
    }
    if (c->filled < size) return 0;
    if (!strncmp(c->buffer, "GET /stats", 10)) {
        char body[200], whole[400];
        int n = snprintf(body, sizeof body, "{\"replies\":%lu,\"streams\":%lu,\"finished\":%lu,\"aborted\":%lu}", replies,
                         streams, finished, aborted);
        n = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
                     n, body);
        return send_all(c, whole, (size_t)n) ? -1 : size;
    }
    if (c->buffer[0] == 'G') {
        static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":0,"
                                     "\"owned_by\":\"mock\"}],\"model_path\":\"mock\",\"status\":\"ok\"}";
        char whole[400];
        int n = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
                         (int)sizeof models - 1, models);
        return send_all(c, whole, (size_t)n) ? -1 : size;
    }
    char *stream = memmem(c->buffer + head, (size_t)(size - head), "\"stream\"", 8);
    if (stream) {
        stream += 8;
        while (*stream == ' ' || *stream == ':') stream++;
    }
    if (!stream || strncmp(stream, "true", 4)) {
        replies++;
        return send_all(c, reply, reply_size) ? -1 : size;
    }
    static const char start[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    streams++;
    c->streaming = 1;
    c->sent = 0;
    c->due = now_ns() + interval_ns;
    c->next = &ring;
    c->previous = ring.previous;
    ring.previous->next = c;
    ring.previous = c;
    return send_all(c, start, sizeof start - 1) ? -1 : size;
}

static void receive(struct connection *c) {
    ssize_t n = recv(c->fd, c->buffer + c->filled, (size_t)(BUFFER - c->filled), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->filled += (int)n;
    while (c->filled && !c->streaming) {
        int used = answer(c);
        if (used < 0) {
            drop(c);
            return;
        }
        if (!used) break;
        memmove(c->buffer, c->buffer + used, (size_t)(c->filled - used));
        c->filled -= used;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: upstream PORT INTERVAL_US EVENTS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    interval_ns = strtoull(argv[2], NULL, 10) * 1000;
    events_per_stream = atoi(argv[3]);
    static const char body[] =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"mock\",\"choices\":"
        "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Your parcel left our store this morning and should "
        "reach you within two to four working days. You can follow it under My orders, where the carrier writes down every "
        "stop that it makes. If nobody is at home, it goes to the nearest post office and waits there for seven days. Is "
        "there anything else that I can do for you today?\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":70,\"total_tokens\":326}}";
    reply_size = (size_t)snprintf(reply, sizeof reply,
                                  "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
                                  (int)sizeof body - 1, body);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        return 1;
    }
    int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), ticking = 0;
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, ready[512];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted);
    wanted.data.fd = timer;
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &wanted);
    for (;;) {
        int count = epoll_wait(poll, ready, 512, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int accepted;
                while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (accepted >= MAX_FD) {
                        close(accepted);
                        continue;
                    }
                    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    struct connection *c = calloc(1, sizeof *c);
                    c->fd = accepted;
                    connections[accepted] = c;
                    wanted.data.fd = accepted;
                    epoll_ctl(poll, EPOLL_CTL_ADD, accepted, &wanted);
                }
            } else if (fd == timer) {
                uint64_t ticks, now = now_ns();
                if (read(timer, &ticks, sizeof ticks) < 0) continue;
                for (struct connection *c = ring.next, *after; c != &ring; c = after) {
                    after = c->next;
                    while (c->streaming && c->due <= now) {
                        c->due += interval_ns;
                        if (emit(c)) {
                            drop(c);
                            break;
                        }
                    }
                }
            } else if (connections[fd]) {
                receive(connections[fd]);
            }
        }
        int busy = ring.next != &ring;
        if (busy != ticking) {
            struct itimerspec each = {{0, busy ? 500000 : 0}, {0, busy ? 500000 : 0}};
            timerfd_settime(timer, 0, &each, NULL);
            ticking = busy;
        }
    }
}
