# pysup._core: the declarations of pysup/_core.cdef.h over the static library, for every CPython from 3.10 on.

set(sabi Development.Module)
if(SKBUILD_SABI_VERSION)
  list(APPEND sabi Development.SABIModule)
endif()
find_package(Python REQUIRED COMPONENTS Interpreter ${sabi})

set(core_cdef ${CMAKE_CURRENT_SOURCE_DIR}/pysup/_core.cdef.h)
set(core_source ${CMAKE_CURRENT_SOURCE_DIR}/pysup/_core.source.c)
set(core_c ${CMAKE_CURRENT_BINARY_DIR}/_core.c)
add_custom_command(
    OUTPUT ${core_c}
    COMMAND Python::Interpreter -m cffi.gen_src read-sources pysup._core ${core_cdef} ${core_source} ${core_c}
    DEPENDS ${core_cdef} ${core_source}
    VERBATIM)

# A list, not a string: each word is an argument of its own.
set(core_abi WITH_SOABI)
if(SKBUILD_SABI_VERSION)
  list(APPEND core_abi USE_SABI ${SKBUILD_SABI_VERSION})
endif()
python_add_library(_core MODULE ${core_abi} ${core_c})
target_link_libraries(_core PRIVATE pysup psup_sanitize)
# The core inside the module is the module's own: not to be shared with, or replaced by, another copy.
target_link_options(_core PRIVATE -Wl,--exclude-libs,ALL)

install(TARGETS _core LIBRARY DESTINATION pysup COMPONENT python)

# What pysup.get_include() points at.
install(FILES csrc/include/pysup.h DESTINATION pysup/include COMPONENT python)
install(FILES $<TARGET_FILE:pysup> DESTINATION pysup/lib COMPONENT python)
