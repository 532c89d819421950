/* pysup-init, as built, inside libpysup: psup__init_image .. psup__init_image_end. */
    .section .rodata
    .balign 16
    .globl psup__init_image
    .hidden psup__init_image
    .type psup__init_image, %object
psup__init_image:
    .incbin PSUP_INIT_IMAGE
    .globl psup__init_image_end
    .hidden psup__init_image_end
psup__init_image_end:
    .byte 0
    .size psup__init_image, psup__init_image_end - psup__init_image
    .section .note.GNU-stack, "", %progbits
