/* For bcc's ring buffers, of which there are none. */
#define PAGE_SIZE 4096
