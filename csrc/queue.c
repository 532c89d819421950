/* A bounded queue of terminations that never blocks its writer, and the subscribers that read one each. */
#include "internal.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LENGTH_MAX (1u << 20)

int psup__queue_init(struct psup__queue *queue, uint32_t length)
{
    *queue = (struct psup__queue){.length = length};
    queue->slots = calloc(length, sizeof *queue->slots);
    return queue->slots ? 0 : -ENOMEM;
}

void psup__queue_push(struct psup__queue *queue, struct psup_process *process, uint64_t timestamp_ms)
{
    if (queue->count == queue->length) {
        if (!queue->lost++)
            queue->lost_since = timestamp_ms;
        return;
    }
    psup__process_reference(process);
    queue->slots[(queue->first + queue->count++) % queue->length] =
        (struct psup__slot){process, queue->lost, queue->lost_since};
    queue->lost = 0;
}

static void fill_loss(psup_event *event, const char *domain, uint64_t *lost, uint64_t since)
{
    *event = (psup_event){.timestamp_ms = since, .type = PSUP_EVENT_LOSS, .lost = *lost};
    snprintf(event->domain, sizeof event->domain, "%s", domain);
    *lost = 0;
}

size_t psup__queue_take(struct psup__queue *queue, const char *domain, psup_event *ret, size_t count,
                        struct psup_process **ret_done, size_t *ret_n_done)
{
    size_t n = 0;
    *ret_n_done = 0;
    while (n < count && queue->count) {
        struct psup__slot *slot = &queue->slots[queue->first];
        if (slot->lost) {
            fill_loss(&ret[n++], domain, &slot->lost, slot->lost_since);
            continue;
        }
        ret[n++] = slot->process->result;
        ret_done[(*ret_n_done)++] = slot->process;
        queue->first = (queue->first + 1) % queue->length;
        queue->count--;
    }
    if (n < count && queue->lost)
        fill_loss(&ret[n++], domain, &queue->lost, queue->lost_since);
    return n;
}

void psup__queue_free(struct psup__queue *queue)
{
    for (; queue->count; queue->count--) {
        psup__process_release(queue->slots[queue->first].process);
        queue->first = (queue->first + 1) % queue->length;
    }
    free(queue->slots);
    queue->slots = NULL;
}

/* ---- subscribers ---- */

int psup_events_new(psup_domain *domain, uint32_t length, psup_events **ret)
{
    psup_supervisor *supervisor = domain->supervisor;
    int result = psup__supervisor_alive(supervisor);
    if (result)
        return result;
    if (!length)
        length = supervisor->queue_length;
    if (length > LENGTH_MAX)
        return -EINVAL;
    struct psup_events *events = calloc(1, sizeof *events);
    if (!events)
        return -ENOMEM;
    atomic_fetch_add(&domain->references, 1);
    events->domain = domain;
    events->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (events->fd < 0 || psup__queue_init(&events->queue, length)) {
        result = events->fd < 0 ? -errno : -ENOMEM;
        psup__shut(events->fd);
        psup__domain_release(domain);
        free(events);
        return result;
    }

    pthread_mutex_lock(&supervisor->lock);
    if (!domain->subscribers) {
        /* What was kept goes to the first; what does not fit its queue counts as lost. */
        struct psup__queue *kept = &domain->backlog;
        for (; kept->count; kept->count--) {
            struct psup__slot *slot = &kept->slots[kept->first];
            if (slot->lost && events->queue.count < events->queue.length) {
                events->queue.lost = slot->lost;
                events->queue.lost_since = slot->lost_since;
            } else {
                events->queue.lost += slot->lost;
            }
            psup__queue_push(&events->queue, slot->process, slot->process->result.timestamp_ms);
            psup__process_release(slot->process);
            kept->first = (kept->first + 1) % kept->length;
        }
        if (kept->lost && !events->queue.lost)
            events->queue.lost_since = kept->lost_since;
        events->queue.lost += kept->lost;
        kept->lost = 0;
    }
    events->next = domain->subscribers;
    domain->subscribers = events;
    if (domain->ended)
        psup__events_end(events);
    if (events->queue.count || events->queue.lost)
        eventfd_write(events->fd, 1);
    pthread_mutex_unlock(&supervisor->lock);
    *ret = events;
    return 0;
}

/* Under the supervisor's lock. */
static void unsubscribe(psup_events *events)
{
    for (psup_events **at = &events->domain->subscribers; *at; at = &(*at)->next)
        if (*at == events) {
            *at = events->next;
            break;
        }
}

void psup__events_end(psup_events *events)
{
    if (events->closed)
        return;
    events->closed = true;
    unsubscribe(events);
    eventfd_write(events->fd, 1);
}

void psup_events_close(psup_events *events)
{
    psup_supervisor *supervisor = events->domain->supervisor;
    if (psup__supervisor_alive(supervisor) == -ESTALE)
        return;
    pthread_mutex_lock(&supervisor->lock);
    psup__events_end(events);
    pthread_mutex_unlock(&supervisor->lock);
}

psup_events *psup_events_free(psup_events *events)
{
    if (!events)
        return NULL;
    psup_events_close(events);
    psup__queue_free(&events->queue);
    psup__shut(events->fd);
    psup__domain_release(events->domain);
    free(events);
    return NULL;
}

int psup_events_fd(const psup_events *events)
{
    return events->fd;
}

int psup_events_read(psup_events *events, psup_event *ret, size_t count)
{
    enum { BATCH = 64 };
    psup_supervisor *supervisor = events->domain->supervisor;
    struct psup_process *done[BATCH];
    size_t n_done;
    int result = psup__supervisor_alive(supervisor);
    if (result == -ESTALE)
        return result;
    pthread_mutex_lock(&supervisor->lock);
    size_t n =
        psup__queue_take(&events->queue, events->domain->name, ret, count < BATCH ? count : BATCH, done, &n_done);
    bool more = events->queue.count || events->queue.lost, closed = events->closed;
    if (!more && !closed) {
        eventfd_t drained;
        eventfd_read(events->fd, &drained);
    }
    pthread_mutex_unlock(&supervisor->lock);
    for (size_t i = 0; i < n_done; i++)
        psup__process_release(done[i]);
    return n ? (int)n : closed ? -EPIPE : 0;
}

int psup_events_wait(psup_events *events, uint64_t timeout)
{
    int result = psup__supervisor_alive(events->domain->supervisor);
    if (result == -ESTALE)
        return result;
    result = psup__poll(events->fd, POLLIN, timeout);
    return result < 0 ? result : result ? 0 : -ETIMEDOUT;
}
