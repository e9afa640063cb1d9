/* Stands in for a cluster's network around linkerd2-proxy, without iptables and without root.  Preloaded, it answers two calls
 * from tables in the environment:
 *
 *   getsockopt(SO_ORIGINAL_DST)   where was this redirected connection going?  ORIGINAL_DST="4140=10.0.0.1:80,..."
 *                                 (local port = address)
 *   connect                       the outbound proxy refuses endpoints on loopback, so they have pod addresses:
 *                                 POD_NETWORK="10.0.1.2:4143=127.0.0.1:20143,..."
 *
 * Both are asked once a connection.  The proxy does not pay for connection tracking, which nobody pays in this comparison. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ORIGINAL_DST 80 /* linux/netfilter_ipv4.h */

/* The address after `key=` in the environment variable `table`; 0 if there is none. */
static int look_up(const char *table, const char *key, struct sockaddr_in *found) {
    size_t length = strlen(key);
    for (const char *at = getenv(table); at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char host[64];
        unsigned port;
        if (strncmp(at, key, length) == 0 && at[length] == '=' && sscanf(at + length + 1, "%63[0-9.]:%u", host, &port) == 2) {
            memset(found, 0, sizeof *found);
            found->sin_family = AF_INET;
            found->sin_port = htons((unsigned short)port);
            return inet_pton(AF_INET, host, &found->sin_addr) == 1;
        }
    }
    return 0;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    static int (*real)(int, int, int, void *, socklen_t *);
    if (!real) real = (int (*)(int, int, int, void *, socklen_t *))dlsym(RTLD_NEXT, "getsockopt");
    if (level == IPPROTO_IP && name == ORIGINAL_DST && *size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in local;
        socklen_t length = sizeof local;
        char port[16];
        if (getsockname(fd, (struct sockaddr *)&local, &length) == 0) {
            snprintf(port, sizeof port, "%u", ntohs(local.sin_port));
            if (look_up("ORIGINAL_DST", port, value)) {
                *size = sizeof local;
                return 0;
            }
        }
    }
    return real(fd, level, name, value, size);
}

int connect(int fd, const struct sockaddr *address, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *to = (const struct sockaddr_in *)address;
        struct sockaddr_in other;
        char host[INET_ADDRSTRLEN], key[INET_ADDRSTRLEN + 8];
        inet_ntop(AF_INET, &to->sin_addr, host, sizeof host);
        snprintf(key, sizeof key, "%s:%u", host, ntohs(to->sin_port));
        if (look_up("POD_NETWORK", key, &other)) return real(fd, (const struct sockaddr *)&other, sizeof other);
    }
    return real(fd, address, size);
}
