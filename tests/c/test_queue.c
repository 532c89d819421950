/* Event queues: bounds, where a loss stands, what is kept for the first subscriber, and closing. */
#include "internal.h"

#include "runner.h"
#include "support.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

/* A process that never ran: all that a queue needs of one. */
static struct psup_process *make_process(psup_supervisor *supervisor, psup_domain *domain, unsigned number)
{
    struct psup_process *process = calloc(1, sizeof *process);
    ASSERT(process);
    atomic_init(&process->references, 1);
    atomic_fetch_add(&supervisor->references, 1);
    if (domain)
        atomic_fetch_add(&domain->references, 1);
    process->supervisor = supervisor;
    process->domain = domain;
    process->pidfd = process->shim.socket = process->shim.pidfd = -1;
    process->ended = process->gone = true;
    process->result = (psup_event){.type = PSUP_EVENT_TERMINATION, .timestamp_ms = number, .exit_status = (int)number};
    snprintf(process->result.name, sizeof process->result.name, "%u", number);
    return process;
}

static void push(struct psup__queue *queue, psup_supervisor *supervisor, unsigned number)
{
    struct psup_process *process = make_process(supervisor, NULL, number);
    psup__queue_push(queue, process, number);
    psup__process_release(process);
}

static size_t take(struct psup__queue *queue, psup_event *ret, size_t count)
{
    struct psup_process *done[16];
    size_t n_done, n = psup__queue_take(queue, "d", ret, count, done, &n_done);
    for (size_t i = 0; i < n_done; i++)
        psup__process_release(done[i]);
    return n;
}

static void is_event(const psup_event *event, unsigned number)
{
    ASSERT_EQ(event->type, PSUP_EVENT_TERMINATION);
    ASSERT_EQ(event->exit_status, number);
    ASSERT_EQ(event->timestamp_ms, number);
}

static void is_loss(const psup_event *event, unsigned lost, unsigned since)
{
    ASSERT_EQ(event->type, PSUP_EVENT_LOSS);
    ASSERT_EQ(event->lost, lost);
    ASSERT_EQ(event->timestamp_ms, since);
    ASSERT_STR_EQ(event->domain, "d");
    ASSERT_STR_EQ(event->name, "");
}

/* A supervisor that is only counted. */
static psup_supervisor *counted(void)
{
    static psup_supervisor supervisor;
    atomic_store(&supervisor.references, 1);
    return &supervisor;
}

TEST(in_order)
{
    psup_supervisor *supervisor = counted();
    struct psup__queue queue;
    psup_event events[16];
    ASSERT_EQ(psup__queue_init(&queue, 3), 0);
    ASSERT_EQ(take(&queue, events, 16), 0);
    for (unsigned round = 0; round < 10; round++) {
        push(&queue, supervisor, 2 * round);
        push(&queue, supervisor, 2 * round + 1);
        ASSERT_EQ(take(&queue, events, 16), 2);
        is_event(&events[0], 2 * round);
        is_event(&events[1], 2 * round + 1);
    }
    psup__queue_free(&queue);
    ASSERT_EQ(supervisor->references, 1);
}

TEST(loss_behind_the_last)
{
    psup_supervisor *supervisor = counted();
    struct psup__queue queue;
    psup_event events[16];
    ASSERT_EQ(psup__queue_init(&queue, 3), 0);
    for (unsigned i = 1; i <= 5; i++)
        push(&queue, supervisor, i);
    ASSERT_EQ(supervisor->references, 4); /* what is lost is not held */
    ASSERT_EQ(take(&queue, events, 16), 4);
    is_event(&events[2], 3);
    is_loss(&events[3], 2, 4);
    ASSERT_EQ(take(&queue, events, 16), 0);
    psup__queue_free(&queue);
}

TEST(loss_between)
{
    psup_supervisor *supervisor = counted();
    struct psup__queue queue;
    psup_event events[16];
    ASSERT_EQ(psup__queue_init(&queue, 2), 0);
    for (unsigned i = 1; i <= 4; i++) /* 1 2, 3 and 4 lost */
        push(&queue, supervisor, i);
    ASSERT_EQ(take(&queue, events, 1), 1);
    is_event(&events[0], 1);
    for (unsigned i = 5; i <= 7; i++) /* 2 LOSS 5, 6 and 7 lost */
        push(&queue, supervisor, i);
    ASSERT_EQ(take(&queue, events, 1), 1);
    is_event(&events[0], 2);
    ASSERT_EQ(take(&queue, events, 1), 1);
    is_loss(&events[0], 2, 3);
    push(&queue, supervisor, 8); /* 5 LOSS 8 */
    ASSERT_EQ(take(&queue, events, 16), 3);
    is_event(&events[0], 5);
    is_loss(&events[1], 2, 6);
    is_event(&events[2], 8);
    psup__queue_free(&queue);
    ASSERT_EQ(supervisor->references, 1);
}

TEST(freed_while_full)
{
    psup_supervisor *supervisor = counted();
    struct psup__queue queue;
    psup_event event;
    ASSERT_EQ(psup__queue_init(&queue, 4), 0);
    for (unsigned i = 0; i < 3; i++)
        push(&queue, supervisor, i);
    ASSERT_EQ(take(&queue, &event, 1), 1);
    for (unsigned i = 0; i < 3; i++)
        push(&queue, supervisor, i);
    psup__queue_free(&queue);
    ASSERT_EQ(supervisor->references, 1);
}

/* Nothing is lost, repeated or put elsewhere that is not told: every number is an event or inside a loss. */
TEST(any_order_of_pushes_and_takes)
{
    psup_supervisor *supervisor = counted();
    unsigned seed = 12345;
    for (uint32_t length = 1; length < 9; length++) {
        struct psup__queue queue;
        psup_event events[16];
        unsigned pushed = 0, seen = 0;
        ASSERT_EQ(psup__queue_init(&queue, length), 0);
        for (unsigned step = 0; step < 3000; step++) {
            seed = seed * 1103515245u + 12345u;
            unsigned count = seed >> 16 & 7;
            if (seed >> 24 & 1) {
                while (count--)
                    push(&queue, supervisor, pushed++);
                continue;
            }
            size_t n = take(&queue, events, step == 2999 ? 16 : count);
            ASSERT(n <= 16);
            for (size_t i = 0; i < n; i++) {
                ASSERT_EQ(events[i].timestamp_ms, seen);
                seen += events[i].type == PSUP_EVENT_LOSS ? (unsigned)events[i].lost : 1;
                ASSERT(events[i].type != PSUP_EVENT_LOSS || events[i].lost);
            }
        }
        for (size_t n; (n = take(&queue, events, 16));)
            for (size_t i = 0; i < n; i++)
                seen += events[i].type == PSUP_EVENT_LOSS ? (unsigned)events[i].lost : 1;
        ASSERT_EQ(seen, pushed);
        psup__queue_free(&queue);
        ASSERT_EQ(supervisor->references, 1);
    }
}

/* ---- subscribers ---- */

static void publish(psup_domain *domain, unsigned number)
{
    psup_supervisor *supervisor = domain->supervisor;
    struct psup_process *process = make_process(supervisor, domain, number);
    pthread_mutex_lock(&supervisor->lock);
    psup__domain_publish(domain, process);
    pthread_mutex_unlock(&supervisor->lock);
    psup__process_release(process);
}

static bool readable(const psup_events *events)
{
    return psup__poll(psup_events_fd(events), POLLIN, 0) == 1;
}

static psup_domain *domain_with_queue(uint32_t length, psup_supervisor **ret)
{
    psup_options options = {.size = sizeof options, .queue_length = length};
    OK(psup_supervisor_new(&options, ret, &test_error));
    return new_domain(*ret, "d");
}

TEST_TIMEOUT(what_was_kept_goes_to_the_first, 60)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(4, &supervisor);
    psup_events *first, *second;
    psup_event got[16];
    for (unsigned i = 1; i <= 6; i++)
        publish(domain, i);
    ASSERT_EQ(psup_events_new(domain, 0, &first), 0);
    ASSERT_EQ(psup_events_new(domain, 0, &second), 0);
    ASSERT(readable(first));
    ASSERT(!readable(second));
    ASSERT_EQ(psup_events_read(second, got, 16), 0);
    ASSERT_EQ(psup_events_read(first, got, 16), 5);
    is_event(&got[0], 1);
    is_event(&got[3], 4);
    is_loss(&got[4], 2, 5);
    ASSERT(!readable(first));

    publish(domain, 7);
    ASSERT_EQ(psup_events_read(first, got, 16), 1);
    is_event(&got[0], 7);
    ASSERT_EQ(psup_events_read(second, got, 16), 1);
    is_event(&got[0], 7);

    /* Without a subscriber it is kept again. */
    psup_events_free(first);
    psup_events_free(second);
    publish(domain, 8);
    ASSERT_EQ(psup_events_new(domain, 0, &first), 0);
    ASSERT_EQ(psup_events_read(first, got, 16), 1);
    is_event(&got[0], 8);
    psup_events_free(first);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(what_was_kept_does_not_fit, 60)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(5, &supervisor);
    psup_events *events;
    psup_event got[16];
    for (unsigned i = 1; i <= 7; i++)
        publish(domain, i);
    ASSERT_EQ(psup_events_new(domain, 2, &events), 0);
    publish(domain, 8);
    ASSERT_EQ(psup_events_read(events, got, 2), 2);
    is_event(&got[0], 1);
    is_event(&got[1], 2);
    ASSERT(readable(events)); /* a loss is news */
    ASSERT_EQ(psup_events_read(events, got, 2), 1);
    is_loss(&got[0], 6, 3);
    ASSERT(!readable(events));
    publish(domain, 9);
    ASSERT_EQ(psup_events_read(events, got, 2), 1);
    is_event(&got[0], 9);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(slow_reader_harms_itself_only, 60)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(0, &supervisor);
    psup_events *slow, *fast;
    psup_event got[16];
    ASSERT_EQ(psup_events_new(domain, 1, &slow), 0);
    ASSERT_EQ(psup_events_new(domain, 8, &fast), 0);
    for (unsigned i = 1; i <= 30; i++) {
        publish(domain, i);
        ASSERT_EQ(psup_events_read(fast, got, 16), 1);
        is_event(&got[0], i);
    }
    ASSERT_EQ(psup_events_read(slow, got, 16), 2);
    is_event(&got[0], 1);
    is_loss(&got[1], 29, 2);
    psup_events_free(fast);
    psup_events_free(slow);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(more_than_a_batch, 60)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(0, &supervisor);
    static psup_event got[300];
    psup_events *events;
    unsigned seen = 0;
    for (unsigned i = 0; i < 300; i++)
        publish(domain, i);
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    ASSERT_EQ(psup_events_read(events, got, 0), 0);
    while (readable(events)) {
        int n = psup_events_read(events, got, 300);
        ASSERT(n > 0);
        for (int i = 0; i < n; i++)
            is_event(&got[i], seen++);
    }
    ASSERT_EQ(seen, 300);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(length_is_bounded, 60)
{
    psup_supervisor *supervisor = NULL;
    psup_options options = {.size = sizeof options, .queue_length = UINT32_MAX};
    psup_events *events = NULL;
    ASSERT_EQ(psup_supervisor_new(&options, &supervisor, &test_error), -EINVAL);
    ASSERT_STR_EQ(test_error.step, "queue_length");
    psup_domain *domain = domain_with_queue(0, &supervisor);
    ASSERT_EQ(psup_events_new(domain, (1u << 20) + 1, &events), -EINVAL);
    ASSERT_EQ(psup_events_new(domain, UINT32_MAX, &events), -EINVAL);
    ASSERT(!events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(closed_can_still_be_read, 60)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(0, &supervisor);
    psup_events *events;
    psup_event got[16];
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    publish(domain, 1);
    publish(domain, 2);
    psup_events_close(events);
    psup_events_close(events);
    publish(domain, 3); /* for the next subscriber */
    ASSERT_EQ(psup_events_wait(events, 0), 0);
    ASSERT_EQ(psup_events_read(events, got, 1), 1);
    ASSERT_EQ(psup_events_read(events, got, 1), 1);
    is_event(&got[0], 2);
    ASSERT_EQ(psup_events_read(events, got, 1), -EPIPE);
    ASSERT(readable(events));
    ASSERT_EQ(psup_events_wait(events, PSUP_FOREVER), 0);
    psup_events_free(events);
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    ASSERT_EQ(psup_events_read(events, got, 1), 1);
    is_event(&got[0], 3);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_TIMEOUT(outlives_domain_and_supervisor, 60)
{
    for (int order = 0; order < 4; order++) {
        psup_supervisor *supervisor;
        psup_domain *domain = domain_with_queue(0, &supervisor);
        psup_events *events, *late = NULL;
        psup_event got;
        ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
        publish(domain, 1);
        if (order & 1)
            psup_domain_free(domain);
        if (order & 2) {
            psup_supervisor_free(supervisor);
            if (!(order & 1))
                ASSERT_EQ(psup_events_new(domain, 0, &late), -ESHUTDOWN);
        }
        if (order) {
            ASSERT_EQ(psup_events_wait(events, 0), 0);
            ASSERT_EQ(psup_events_read(events, &got, 1), 1);
            is_event(&got, 1);
            ASSERT_EQ(psup_events_read(events, &got, 1), -EPIPE);
        }
        psup_events_free(events);
        if (!(order & 1))
            psup_domain_free(domain);
        if (!(order & 2))
            psup_supervisor_free(supervisor);
    }
    ASSERT(!psup_events_free(NULL));
}

/* ---- threads ---- */

static void *wait_for_close(void *argument)
{
    psup_events *events = argument;
    psup_event event;
    for (;;) {
        ASSERT_EQ(psup_events_wait(events, PATIENCE), 0);
        int n = psup_events_read(events, &event, 1);
        if (n == -EPIPE)
            return NULL;
        ASSERT(n == 0 || n == 1);
    }
}

TEST_TIMEOUT(close_wakes_waiters, 180)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(0, &supervisor);
    psup_events *events;
    pthread_t threads[4];
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    ASSERT_EQ(psup_events_wait(events, 1000000), -ETIMEDOUT);
    for (int i = 0; i < 4; i++)
        ASSERT_EQ(pthread_create(&threads[i], NULL, wait_for_close, events), 0);
    publish(domain, 1);
    sleep_ms(20);
    psup_events_close(events);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

#define PUBLISHERS 4
#define EACH 500

static void *publish_many(void *argument)
{
    for (unsigned i = 0; i < EACH; i++)
        publish(argument, i);
    return NULL;
}

static void *subscribe_and_go(void *argument)
{
    psup_event got[8];
    for (int i = 0; i < 100; i++) {
        psup_events *events;
        ASSERT_EQ(psup_events_new(argument, 3, &events), 0);
        ASSERT(psup_events_read(events, got, 8) >= 0);
        psup_events_free(events);
    }
    return NULL;
}

TEST_TIMEOUT(nothing_is_lost_untold, 180)
{
    psup_supervisor *supervisor;
    psup_domain *domain = domain_with_queue(0, &supervisor);
    pthread_t threads[PUBLISHERS], other;
    psup_events *events;
    psup_event got[8];
    uint64_t told = 0;
    ASSERT_EQ(psup_events_new(domain, 16, &events), 0);
    for (int i = 0; i < PUBLISHERS; i++)
        ASSERT_EQ(pthread_create(&threads[i], NULL, publish_many, domain), 0);
    ASSERT_EQ(pthread_create(&other, NULL, subscribe_and_go, domain), 0);
    while (told < PUBLISHERS * EACH) {
        ASSERT_EQ(psup_events_wait(events, PATIENCE), 0);
        int n = psup_events_read(events, got, 8);
        ASSERT(n >= 0);
        for (int i = 0; i < n; i++)
            told += got[i].type == PSUP_EVENT_LOSS ? got[i].lost : 1;
    }
    ASSERT_EQ(told, PUBLISHERS * EACH);
    for (int i = 0; i < PUBLISHERS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(other, NULL);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}
