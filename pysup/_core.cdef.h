/* Read by cffi: declarations only. */
const char *psup_version(void);
