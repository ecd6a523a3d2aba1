/* A stream in C: one reading a line in, one forecast a line out, with onnxruntime's C API alone.
 *
 *     ./stream model.onnx < readings.csv
 *
 * The readings have a header and a column for each channel, in the order of the model; an empty
 * field, or "nan", is a missing reading. A line of the output is one forecast, in raw units:
 * steps ahead, in each of these channels, in each of these quantile levels. */
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIMS 8
#define MAX_LINE 65536

static const OrtApi *ort;

static void fail(const char *message) {
    fprintf(stderr, "stream: %s\n", message);
    exit(1);
}

static void check(OrtStatus *status) {
    if (status) fail(ort->GetErrorMessage(status));
}

/* A float32 tensor in memory of ours, which onnxruntime reads and writes in place. */
typedef struct {
    float *data;
    size_t size;
    OrtValue *value;
} Tensor;

static Tensor make_tensor(const int64_t *dims, size_t rank) {
    Tensor tensor = {.size = 1};
    for (size_t d = 0; d < rank; d++) tensor.size *= (size_t)dims[d];
    tensor.data = calloc(tensor.size, sizeof(float));
    if (!tensor.data) fail("out of memory");
    OrtMemoryInfo *cpu;
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &cpu));
    check(ort->CreateTensorWithDataAsOrtValue(cpu, tensor.data, tensor.size * sizeof(float), dims,
                                              rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &tensor.value));
    ort->ReleaseMemoryInfo(cpu);
    return tensor;
}

/* Shape of an input or output; what depends on the batch is -1 there, and 1 for one stream. */
static size_t read_dims(OrtTypeInfo *type, int64_t *dims) {
    const OrtTensorTypeAndShapeInfo *info;
    size_t rank;
    check(ort->CastTypeInfoToTensorInfo(type, &info));
    check(ort->GetDimensionsCount(info, &rank));
    if (rank > MAX_DIMS) fail("a tensor has too many axes");
    check(ort->GetDimensions(info, dims, rank));
    ort->ReleaseTypeInfo(type);
    for (size_t d = 0; d < rank; d++)
        if (dims[d] < 0) dims[d] = 1;
    return rank;
}

/* The value of a key in one flat object of the metadata, which ends at its first brace. */
static const char *find(const char *object, const char *key) {
    const char *found = strstr(object, key), *end = strchr(object, '}');
    if (!found || !end || found > end) fail("the metadata of the model are incomplete");
    return strchr(found, ':') + 1;
}

/* Numbers in brackets, or a single one without them; returns how many there were. */
static size_t read_numbers(const char *text, double *numbers, size_t limit) {
    char *end;
    size_t count = 0;
    text += strspn(text, " [");
    while (count < limit) {
        double number = strtod(text, &end);
        if (end == text) break;
        numbers[count++] = number;
        text = end + strspn(end, " ");
        if (*text != ',') break;
        text += strspn(text, ", ");
    }
    return count;
}

/* One array of the state, with the values it has before the first reading. */
static Tensor make_state(const char *object) {
    double shape[MAX_DIMS];
    int64_t dims[MAX_DIMS];
    size_t rank = read_numbers(find(object, "\"shape\""), shape, MAX_DIMS);
    for (size_t d = 0; d < rank; d++) dims[d] = (int64_t)shape[d];
    Tensor tensor = make_tensor(dims, rank);
    double *initial = malloc(tensor.size * sizeof(double));
    if (!initial) fail("out of memory");
    const char *text = find(object, "\"initial\"");
    size_t count = read_numbers(text, initial, text[strspn(text, " ")] == '[' ? tensor.size : 1);
    if (count != 1 && count != tensor.size) fail("the metadata of the model are incomplete");
    for (size_t k = 0; k < tensor.size; k++)
        tensor.data[k] = (float)initial[count == 1 ? 0 : k];
    free(initial);
    return tensor;
}

/* The next line of the input; 0 where there is none. */
static int next_line(char *line) {
    if (!fgets(line, MAX_LINE, stdin)) return 0;
    if (!strchr(line, '\n') && !feof(stdin)) fail("a line is too long: raise MAX_LINE");
    return 1;
}

static int read_line(Tensor reading) {
    char line[MAX_LINE];
    if (!next_line(line)) return 0;
    char *field = line;
    for (size_t c = 0; c < reading.size; c++) {
        char *end;
        if (!field) fail("a line has fewer fields than the model has channels");
        reading.data[c] = strtof(field, &end);
        if (end == field) reading.data[c] = NAN;
        end += strspn(end, " \r\n");
        if (*end && *end != ',') fail("a field is not a number");
        field = *end ? end + 1 : NULL;
    }
    if (field) fail("a line has more fields than the model has channels");
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: stream model.onnx < readings.csv");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!ort) fail("this onnxruntime is older than the header that this program was built with");
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtAllocator *allocator;
    OrtModelMetadata *metadata;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "stream", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1)); /* a step is too small to share */
    check(ort->CreateSession(env, argv[1], options, &session));
    check(ort->GetAllocatorWithDefaultOptions(&allocator));

    char *contract;
    check(ort->SessionGetModelMetadata(session, &metadata));
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "xlstm_ts", &contract));
    if (!contract) fail("the model is not a step graph of xlstm-ts");

    /* The reading and then the state go in; the forecast and then the state come out. */
    size_t count;
    check(ort->SessionGetInputCount(session, &count));
    char **names[2] = {calloc(count, sizeof(char *)), calloc(count, sizeof(char *))};
    OrtValue **values[2][2]; /* of turn, in and out */
    for (int turn = 0; turn < 2; turn++)
        for (int out = 0; out < 2; out++) values[turn][out] = calloc(count, sizeof(OrtValue *));
    for (size_t k = 0; k < count; k++) {
        check(ort->SessionGetInputName(session, k, allocator, &names[0][k]));
        check(ort->SessionGetOutputName(session, k, allocator, &names[1][k]));
    }
    if (strcmp(names[0][0], "reading")) fail("the first input of the model is no reading");
    if (count > 1 && !strcmp(names[0][1], "covariates")) fail("the model needs covariates too");

    OrtTypeInfo *type;
    int64_t dims[MAX_DIMS];
    check(ort->SessionGetInputTypeInfo(session, 0, &type));
    size_t rank = read_dims(type, dims);
    Tensor reading = make_tensor(dims, rank);
    check(ort->SessionGetOutputTypeInfo(session, 0, &type));
    rank = read_dims(type, dims);
    Tensor forecast = make_tensor(dims, rank);
    for (int turn = 0; turn < 2; turn++) {
        values[turn][0][0] = reading.value;
        values[turn][1][0] = forecast.value;
    }
    /* Two copies of the state, which the model reads and writes in turn: nothing is copied. */
    const char *object = strstr(contract, "\"state\": "); /* in names quotes are escaped */
    for (size_t k = 1; k < count; k++) {
        object = object ? strchr(object, '{') : NULL;
        if (!object) fail("the metadata of the model are incomplete");
        for (int turn = 0; turn < 2; turn++)
            values[turn][0][k] = values[1 - turn][1][k] = make_state(object).value;
        object = strchr(object, '}');
    }

    char header[MAX_LINE];
    if (!next_line(header)) fail("the readings have no header");
    for (int turn = 0; read_line(reading); turn = 1 - turn) {
        check(ort->Run(session, NULL, (const char *const *)names[0],
                       (const OrtValue *const *)values[turn][0], count,
                       (const char *const *)names[1], count, values[turn][1]));
        for (size_t k = 0; k < forecast.size; k++)
            printf("%.9g%c", forecast.data[k], k + 1 < forecast.size ? ',' : '\n');
        fflush(stdout); /* who reads a pipe is to hear of it now */
    }
    return 0; /* the system takes back what a program that ends has held */
}
