#ifndef PYSUP_H
#define PYSUP_H

/* The one place where the version is written down: the build and the Python package read this line. */
#define PSUP_VERSION "0.1.0"

#define PSUP_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that is running; compare with PSUP_VERSION of the header. Static storage. */
PSUP_API const char *psup_version(void);

#ifdef __cplusplus
}
#endif

#endif
