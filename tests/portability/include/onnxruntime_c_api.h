/* What examples/c calls of onnxruntime's C API, for machines that have the library (the wheel ships
 * it) and not its header. The table of functions only ever grows at its end, so each keeps its
 * place; `skip` is the places between two that are used. An application takes the real header. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 7
#define PLACES_JOINED(a, b) a##b
#define PLACES(a, b) PLACES_JOINED(a, b)
#define skip(count) void *PLACES(unused, __LINE__)[count]

enum { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11 };
enum { ORT_LOGGING_LEVEL_WARNING = 2 };
enum { OrtDeviceAllocator = 0, OrtMemTypeDefault = 0 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtModelMetadata OrtModelMetadata;

typedef struct {
    skip(2);
    const char *(*GetErrorMessage)(const OrtStatus *); /* 2 */
    OrtStatus *(*CreateEnv)(int, const char *, OrtEnv **);
    skip(3);
    OrtStatus *(*CreateSession)(const OrtEnv *, const char *, const OrtSessionOptions *,
                                OrtSession **); /* 7 */
    skip(1);
    OrtStatus *(*Run)(OrtSession *, const OrtRunOptions *, const char *const *,
                      const OrtValue *const *, size_t, const char *const *, size_t,
                      OrtValue **); /* 9 */
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **);
    skip(13);
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *, int); /* 24 */
    skip(5);
    OrtStatus *(*SessionGetInputCount)(const OrtSession *, size_t *); /* 30 */
    skip(2);
    OrtStatus *(*SessionGetInputTypeInfo)(const OrtSession *, size_t, OrtTypeInfo **); /* 33 */
    OrtStatus *(*SessionGetOutputTypeInfo)(const OrtSession *, size_t, OrtTypeInfo **);
    skip(1);
    OrtStatus *(*SessionGetInputName)(const OrtSession *, size_t, OrtAllocator *, char **); /* 36 */
    OrtStatus *(*SessionGetOutputName)(const OrtSession *, size_t, OrtAllocator *, char **);
    skip(11);
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *, size_t,
                                                 const int64_t *, size_t, int,
                                                 OrtValue **); /* 49 */
    skip(5);
    OrtStatus *(*CastTypeInfoToTensorInfo)(const OrtTypeInfo *,
                                           const OrtTensorTypeAndShapeInfo **); /* 55 */
    skip(5);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *, size_t *); /* 61 */
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *, int64_t *, size_t);
    skip(6);
    OrtStatus *(*CreateCpuMemoryInfo)(int, int, OrtMemoryInfo **); /* 69 */
    skip(8);
    OrtStatus *(*GetAllocatorWithDefaultOptions)(OrtAllocator **); /* 78 */
    skip(15);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo *); /* 94 */
    skip(3);
    void (*ReleaseTypeInfo)(OrtTypeInfo *); /* 98 */
    skip(12);
    OrtStatus *(*SessionGetModelMetadata)(const OrtSession *, OrtModelMetadata **); /* 111 */
    skip(4);
    OrtStatus *(*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata *, OrtAllocator *,
                                                       const char *, char **); /* 116 */
} OrtApi;

typedef struct {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

const OrtApiBase *OrtGetApiBase(void);
#undef skip
