/* bcc names it in its programs' prototypes. */
struct pt_regs;
