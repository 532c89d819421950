#include "pysup.h"
