/* Runs a table of steps on a pool of threads.
 *
 * A pool has a gate, one 64-bit word: the number of the job above, then two flags, then how many helpers are inside.
 * The caller describes a job, opens the gate under a new number, works itself, and closes the gate when no task is left to
 * take.  Helpers that see an open gate enter by adding one to it, work, and subtract one again; the caller waits only for
 * those who entered.  A helper that sleeps or waits for a core so never holds up a job: the others do its tasks.
 *
 * Each thread begins with a share of the tasks of its own, the same in every job of the same size, so that what it wrote
 * lies in its caches when the next job reads it; then it takes from the shares of the others.
 *
 * Helpers that have nothing to do look at the gate for a short time, then sleep.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef EXPORT /* a library that includes this file keeps it to itself */
#define EXPORT __attribute__((visibility("default")))
#endif

typedef void (*Function)(void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker);

enum { PHASE = 0, COPY = 1, FINITE_F32 = 2, FINITE_F64 = 3 };

typedef struct {
    Function function;     /* PHASE */
    void *const *buffers;  /* PHASE: its arguments; COPY: target, source; FINITE: the values */
    const int64_t *sizes;  /* PHASE */
    int64_t tasks;         /* PHASE: how many; COPY: bytes; FINITE: elements */
    int64_t kind;
} Step;

#define LINE 64
typedef struct {
    _Alignas(LINE) atomic_int_fast64_t next;
    int64_t end;
} Share;

typedef struct Pool Pool;

typedef struct {
    Pool *pool;
    int64_t worker;
} Helper;

#define INSIDE ((uint64_t)0xffff)
#define OPEN ((uint64_t)1 << 16)
#define AWAITED ((uint64_t)1 << 17) /* the caller sleeps until the last helper has left */
#define NUMBER ((uint64_t)1 << 20)

struct Pool {
    _Alignas(LINE) atomic_uint_fast64_t gate;
    _Alignas(LINE) atomic_uint_fast64_t busy; /* generation of the process in which somebody runs steps on the pool; 0: nobody */
    _Alignas(LINE) atomic_int sleeping;  /* helpers that sleep, or are about to */
    const Step *step;
    int64_t chunk;
    int64_t shares;
    int64_t threads;      /* asked for, the caller's among them */
    int64_t spin;         /* nanoseconds to look at the gate before sleeping */
    uint64_t generation;  /* of the process that the helpers run in: a forked child has none of its parent's threads */
    uint64_t rounding;    /* the caller's floating-point settings */
    pthread_mutex_t mutex;
    pthread_cond_t opened, left;
    Helper *helpers;
    Share *share;
};

static atomic_uint_fast64_t generation = 1; /* grows with every fork, in the child */

static void forked(void) { atomic_fetch_add(&generation, 1); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Rounding and denormals as the caller has them, so that it does not matter which thread does a task. */
static inline uint64_t settings(void) {
#if defined(__SSE__)
    return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
    uint64_t now;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(now));
    return now;
#else
    return 0;
#endif
}

static inline void adopt(uint64_t wanted) {
#if defined(__SSE__)
    if (__builtin_ia32_stmxcsr() != wanted) __builtin_ia32_ldmxcsr((unsigned int)wanted);
#elif defined(__aarch64__)
    if (settings() != wanted) __asm__ __volatile__("msr fpcr, %0" : : "r"(wanted));
#else
    (void)wanted;
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --- tasks ---------------------------------------------------------------------------------------------------------- */

static void work(Pool *pool, int64_t worker) {
    const Step *step = pool->step;
    const int64_t shares = pool->shares, chunk = pool->chunk;
    for (int64_t turn = 0; turn < shares; turn++) {
        Share *share = &pool->share[(worker + turn) % shares];
        for (;;) {
            if (atomic_load_explicit(&share->next, memory_order_relaxed) >= share->end) break;
            const int64_t first = atomic_fetch_add_explicit(&share->next, chunk, memory_order_relaxed);
            if (first >= share->end) break;
            const int64_t last = first + chunk < share->end ? first + chunk : share->end;
            step->function(step->buffers, step->sizes, first, last, worker);
        }
    }
}

/* --- helpers -------------------------------------------------------------------------------------------------------- */

/* Whether the gate is open for a job that this helper has not been in. */
static inline int is_new(uint64_t gate, uint64_t seen) { return (gate & OPEN) && gate / NUMBER != seen; }

static uint64_t wait_for_job(Pool *pool, uint64_t seen) {
    uint64_t gate;
    if (pool->spin > 0) {
        const int64_t until = nanoseconds() + pool->spin;
        do {
            for (int i = 0; i < 32; i++) {
                gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
                if (is_new(gate, seen)) return gate;
                pause_briefly();
            }
        } while (nanoseconds() < until);
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1); /* before the gate is read: whoever opens it afterwards sees the sleeper */
    gate = atomic_load(&pool->gate);
    if (!is_new(gate, seen)) pthread_cond_wait(&pool->opened, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
    return atomic_load(&pool->gate); /* if that job is over already, the next is near: look again before sleeping */
}

static void *serve(void *argument) {
    Helper *helper = argument;
    Pool *pool = helper->pool;
    uint64_t seen = 0;
    for (;;) {
        uint64_t gate = wait_for_job(pool, seen);
        /* one that closes meanwhile is missed; the number cannot come back */
        while (is_new(gate, seen) && !atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) {}
        if (!is_new(gate, seen)) continue;
        seen = gate / NUMBER;
        adopt(pool->rounding);
        work(pool, helper->worker);
        const uint64_t before = atomic_fetch_sub(&pool->gate, 1);
        if ((before & INSIDE) == 1 && (before & AWAITED)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->left);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
    return NULL;
}

/* Start the helpers, in a new process again.  With fewer than asked for, or none, the work is done all the same. */
static void start(Pool *pool) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pool->generation = atomic_load(&generation);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->left, NULL);
    atomic_store(&pool->gate, 0);
    atomic_store(&pool->sleeping, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, (size_t)8 << 20);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the program */
    for (int64_t i = 1; i < pool->threads; i++) {
        pthread_t thread;
        pool->helpers[i].pool = pool;
        pool->helpers[i].worker = i;
        if (pthread_create(&thread, &attributes, serve, &pool->helpers[i]) != 0) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* --- jobs ----------------------------------------------------------------------------------------------------------- */

static void run_shared(Pool *pool, const Step *step) {
    const int64_t tasks = step->tasks, shares = pool->threads < tasks ? pool->threads : tasks;
    for (int64_t i = 0; i < shares; i++) {
        atomic_store_explicit(&pool->share[i].next, tasks * i / shares, memory_order_relaxed);
        pool->share[i].end = tasks * (i + 1) / shares;
    }
    pool->step = step;
    pool->rounding = settings();
    pool->shares = shares;
    pool->chunk = tasks / (shares * 8) > 1 ? tasks / (shares * 8) : 1;
    const uint64_t number = atomic_load(&pool->gate) / NUMBER + 1;
    atomic_store(&pool->gate, number * NUMBER + OPEN);
    if (atomic_load(&pool->sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->opened);
        pthread_mutex_unlock(&pool->mutex);
    }
    work(pool, 0);
    uint64_t gate = atomic_fetch_and(&pool->gate, ~OPEN) & ~OPEN;
    if ((gate & INSIDE) == 0) return;
    const int64_t until = nanoseconds() + pool->spin;
    do {
        for (int i = 0; i < 32; i++) {
            gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
            if ((gate & INSIDE) == 0) return;
            pause_briefly();
        }
    } while (pool->spin > 0 && nanoseconds() < until);
    pthread_mutex_lock(&pool->mutex);
    gate = atomic_fetch_or(&pool->gate, AWAITED);
    while ((gate & INSIDE) != 0) {
        pthread_cond_wait(&pool->left, &pool->mutex);
        gate = atomic_load(&pool->gate);
    }
    pthread_mutex_unlock(&pool->mutex); /* the next job's number clears the flag */
}

/* Whether all values are finite; the sum of x - x is NaN if one is not, and has no branches. */
static int finite_f32(const float *values, int64_t count) {
    float sum = 0;
    for (int64_t i = 0; i < count; i++) sum += values[i] - values[i];
    return sum == 0;
}

static int finite_f64(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += values[i] - values[i];
    return sum == 0;
}

/* Runs one step; 0 if it is a check that failed. */
static int run_step(Pool *pool, const Step *step, int owned) {
    switch (step->kind) {
    case COPY:
        memmove(step->buffers[0], step->buffers[1], (size_t)step->tasks);
        return 1;
    case FINITE_F32:
        return finite_f32(step->buffers[0], step->tasks);
    case FINITE_F64:
        return finite_f64(step->buffers[0], step->tasks);
    default:
        if (step->tasks > 1 && owned)
            run_shared(pool, step);
        else if (step->tasks > 0)
            step->function(step->buffers, step->sizes, 0, step->tasks, 0);
        return 1;
    }
}

/* Whether the caller has the pool for itself now; what somebody in a parent process was doing there is of no interest. */
static int take(Pool *pool) {
    const uint64_t now = atomic_load(&generation);
    uint64_t holder = atomic_load(&pool->busy);
    if (pool->threads < 2 || holder == now || !atomic_compare_exchange_strong(&pool->busy, &holder, now)) return 0;
    if (pool->generation != now) start(pool);
    return 1;
}

static void give(Pool *pool) { atomic_store(&pool->busy, 0); }

/* --- what Python calls ---------------------------------------------------------------------------------------------- */

EXPORT Pool *irconv_pool(int64_t threads, int64_t spin) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (threads < 1) threads = 1;
    if (threads > (int64_t)INSIDE) threads = (int64_t)INSIDE;
    Pool *pool = aligned_alloc(LINE, sizeof(Pool));
    Share *share = aligned_alloc(LINE, (size_t)threads * sizeof(Share));
    Helper *helpers = calloc((size_t)threads, sizeof(Helper));
    if (pool == NULL || share == NULL || helpers == NULL) return NULL;
    memset(pool, 0, sizeof(Pool));
    pool->threads = threads;
    pool->spin = spin;
    pool->share = share;
    pool->helpers = helpers;
    pthread_once(&once, watch_forks);
    return pool;
}

/* Runs steps in turn.  0 when all have run, else 1 + the position of the check that failed; none after it has run.
 * Whoever finds the pool in use does its work alone. */
EXPORT int64_t irconv_run(Pool *pool, const Step *steps, int64_t count) {
    const int owned = take(pool);
    int64_t failed = 0;
    for (int64_t i = 0; i < count && failed == 0; i++)
        if (!run_step(pool, &steps[i], owned)) failed = i + 1;
    if (owned) give(pool);
    return failed;
}

/* The same for a row that is described once: a foreign call with one argument takes half the time of one with three. */
typedef struct {
    Pool *pool;
    const Step *steps;
    int64_t count;
} Row;

EXPORT int64_t irconv_run_row(const Row *row) { return irconv_run(row->pool, row->steps, row->count); }

/* As irconv_run, and seconds per step. */
EXPORT int64_t irconv_run_timed(Pool *pool, const Step *steps, int64_t count, double *seconds) {
    const int owned = take(pool);
    int64_t failed = 0;
    for (int64_t i = 0; i < count && failed == 0; i++) {
        const int64_t start = nanoseconds();
        if (!run_step(pool, &steps[i], owned)) failed = i + 1;
        seconds[i] = (double)(nanoseconds() - start) * 1e-9;
    }
    if (owned) give(pool);
    return failed;
}
