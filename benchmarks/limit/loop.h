/*
 * What limit.c and capi.c share: time, arguments, and the conversation with who measures. A line with a number comes
 * in, that many steps are made, and for each a line goes out with the nanoseconds of its parts. So several programs
 * can take turns.
 */
#ifndef LOOP_H
#define LOOP_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARTS 4
#define BURST 10000

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

/* The value of the n-th argument "key=value", or NULL. */
static const char *argument(char **argv, const char *key, int n)
{
    size_t length = strlen(key);
    for (; *argv; argv++)
        if (!strncmp(*argv, key, length) && (*argv)[length] == '=' && !n--)
            return *argv + length + 1;
    return NULL;
}

static void converse(void (*step)(uint64_t ns[PARTS]), int parts)
{
    static uint64_t ns[BURST][PARTS];
    char line[32];
    while (fgets(line, sizeof line, stdin)) {
        int count = atoi(line);
        must(count > 0 && count <= BURST, "count");
        for (int i = 0; i < count; i++)
            step(ns[i]);
        for (int i = 0; i < count; i++)
            for (int part = 0; part < parts; part++)
                printf("%llu%c", (unsigned long long)ns[i][part], part + 1 < parts ? ' ' : '\n');
        fflush(stdout);
    }
}

#endif
