/* RISC-V: what must be so before main. There is no .data: chip.ld sees to it. */
    .option arch, +zicsr
    .option norelax
    .section .vectors, "ax"
    .global start
start:
    la gp, __global_pointer$
    la sp, stack_top
    la a0, fault
    csrw mtvec, a0
    la a1, bss_start
    la a2, bss_end
1:  bgeu a1, a2, 2f
    sw zero, 0(a1)
    addi a1, a1, 4
    j 1b
2:  call main
    call io_exit
    .balign 4
fault:
    li a0, 127
    call io_exit
