/* pysup-init: the PID 1 of a domain. No libc: raw system calls and its own entry point. */

#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call psup_init_main\n"
        "    mov %eax, %edi\n"
        "    mov $231, %eax\n" /* exit_group */
        "    syscall\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl psup_init_main\n"
        "    mov x8, #94\n" /* exit_group */
        "    svc #0\n");
#else
#error "pysup-init: no entry point for this architecture"
#endif

__attribute__((used)) int psup_init_main(const long *stack);

int psup_init_main(const long *stack) {
    (void)stack;
    return 0;
}
