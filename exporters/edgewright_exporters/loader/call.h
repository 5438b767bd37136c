/* Calls a function that takes a number of pointers known only when the model is read.
 *
 * A kernel's own type names what its pointers point at. Machine code knows no such difference: on every ABI that
 * kernels are compiled for, pointers of all types are passed alike. */
#include <stdint.h>

enum { MOST_POINTERS = 16 };

#define T1 void *
#define T2 T1, void *
#define T3 T2, void *
#define T4 T3, void *
#define T5 T4, void *
#define T6 T5, void *
#define T7 T6, void *
#define T8 T7, void *
#define T9 T8, void *
#define T10 T9, void *
#define T11 T10, void *
#define T12 T11, void *
#define T13 T12, void *
#define T14 T13, void *
#define T15 T14, void *
#define T16 T15, void *

#define P1 p[0]
#define P2 P1, p[1]
#define P3 P2, p[2]
#define P4 P3, p[3]
#define P5 P4, p[4]
#define P6 P5, p[5]
#define P7 P6, p[6]
#define P8 P7, p[7]
#define P9 P8, p[8]
#define P10 P9, p[9]
#define P11 P10, p[10]
#define P12 P11, p[11]
#define P13 P12, p[12]
#define P14 P13, p[13]
#define P15 P14, p[14]
#define P16 P15, p[15]

#define CASE(n) \
  case n:       \
    ((void (*)(T##n, int32_t, int32_t))(uintptr_t)function)(P##n, begin, end); \
    break

static void call(void *function, size_t count, void *const *p, int32_t begin, int32_t end) {
  switch (count) {
    CASE(1);
    CASE(2);
    CASE(3);
    CASE(4);
    CASE(5);
    CASE(6);
    CASE(7);
    CASE(8);
    CASE(9);
    CASE(10);
    CASE(11);
    CASE(12);
    CASE(13);
    CASE(14);
    CASE(15);
    CASE(16);
  }
}
