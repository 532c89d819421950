/*
 * The smallest program: it ends at once, or waits for a signal where it has an argument. Built with -nostdlib -static,
 * so that what is measured is the start of a process and not that of a C library.
 */
#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start: mov (%rsp), %rax\n"
        " cmp $1, %rax\n"
        " jg 1f\n"
        " xor %edi, %edi\n"
        " mov $231, %eax\n" /* exit_group */
        " syscall\n"
        "1: mov $34, %eax\n" /* pause */
        " syscall\n"
        " jmp 1b\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start: ldr x0, [sp]\n"
        " cmp x0, #1\n"
        " b.gt 1f\n"
        " mov x0, #0\n"
        " mov x8, #94\n" /* exit_group */
        " svc #0\n"
        "1: mov x0, #0\n"
        " mov x1, #0\n"
        " mov x2, #0\n"
        " mov x3, #0\n"
        " mov x8, #73\n" /* ppoll */
        " svc #0\n"
        " b 1b\n");
#endif
