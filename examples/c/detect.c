/* A detector in C: one reading a line in, its anomaly score out, with onnxruntime's C API alone.
 *
 *     ./detect scores.onnx < readings.csv
 *
 * The model is the second file of export_detector(..., scores=...). The readings have a header and a
 * column for each channel, in the order of the model; an empty field, "nan" or "inf" is a missing reading.
 * A line of the output is the score (-log10 p), 1 where the reading is in alarm, and for each channel
 * what it contributes. Tails stay as training left them; what channels tell of each other is left out. */
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIMS 8
#define MAX_LINE 65536
#define MAX_NAME 128

static const OrtApi *ort;

static void fail(const char *message) {
    fprintf(stderr, "detect: %s\n", message);
    exit(1);
}

static void check(OrtStatus *status) {
    if (status) fail(ort->GetErrorMessage(status));
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) fail("out of memory");
    return memory;
}

/* A tensor in memory of ours, of float64 or float32, which onnxruntime reads and writes in place. */
typedef struct {
    void *data;
    size_t size;
    int is_double;
    OrtValue *value;
} Tensor;

static Tensor make_tensor(const int64_t *dims, size_t rank, int is_double) {
    Tensor tensor = {.size = 1, .is_double = is_double};
    size_t width = is_double ? sizeof(double) : sizeof(float);
    for (size_t d = 0; d < rank; d++) tensor.size *= (size_t)dims[d];
    tensor.data = allocate(tensor.size, width);
    OrtMemoryInfo *cpu;
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &cpu));
    check(ort->CreateTensorWithDataAsOrtValue(
        cpu, tensor.data, tensor.size * width, dims, rank,
        is_double ? ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        &tensor.value));
    ort->ReleaseMemoryInfo(cpu);
    return tensor;
}

static Tensor make_row(size_t width) {
    return make_tensor((int64_t[]){1, (int64_t)width}, 2, 1);
}

/* What follows the next mark, mostly `"key": `: quotes in the name of a channel are escaped. */
static const char *find(const char *text, const char *mark) {
    const char *found = strstr(text, mark);
    if (!found) fail("the metadata of the model are incomplete");
    return found + strlen(mark);
}

static char *find_text(const char *object, const char *key) {
    const char *text = find(object, key);
    size_t length = strcspn(text + 1, "\"");
    char *copy = allocate(MAX_NAME, 1);
    if (*text != '"' || length >= MAX_NAME) fail("the metadata of the model are incomplete");
    return memcpy(copy, text + 1, length);
}

/* Numbers in brackets, null for NaN; returns how many there were. */
static size_t read_numbers(const char *text, double *numbers, size_t limit) {
    size_t count = 0;
    for (text += strspn(text, " ["); count < limit; text += strspn(text, " ,")) {
        char *end;
        int is_null = !strncmp(text, "null", 4);
        double number = is_null ? NAN : strtod(text, &end);
        if (is_null) end = (char *)text + 4;
        if (end == text) break;
        numbers[count++] = number;
        text = end;
    }
    return count;
}

/* One array of the metadata, with the values it has before the first reading. */
static Tensor make_described(const char *object) {
    double shape[MAX_DIMS];
    int64_t dims[MAX_DIMS];
    size_t rank = read_numbers(find(object, "\"shape\": "), shape, MAX_DIMS);
    for (size_t d = 0; d < rank; d++) dims[d] = (int64_t)shape[d];
    char *dtype = find_text(object, "\"dtype\": ");
    Tensor tensor = make_tensor(dims, rank, !strcmp(dtype, "float64"));
    double *initial = allocate(tensor.size, sizeof(double));
    if (read_numbers(find(object, "\"initial\": "), initial, tensor.size) != tensor.size)
        fail("the metadata of the model are incomplete");
    for (size_t k = 0; k < tensor.size; k++) {
        if (tensor.is_double) ((double *)tensor.data)[k] = initial[k];
        else ((float *)tensor.data)[k] = (float)initial[k];
    }
    free(initial);
    free(dtype);
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
        double number = strtod(field, &end);
        ((double *)reading.data)[c] = end == field ? NAN : number;
        end += strspn(end, " \r\n");
        if (*end && *end != ',') fail("a field is not a number");
        field = *end ? end + 1 : NULL;
    }
    if (field) fail("a line has more fields than the model has channels");
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: detect scores.onnx < readings.csv");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!ort) fail("this onnxruntime is older than the header that this program was built with");
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtAllocator *allocator;
    OrtModelMetadata *metadata;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "detect", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->SetIntraOpNumThreads(options, 1)); /* a reading is too small to share */
    check(ort->CreateSession(env, argv[1], options, &session));
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    char *record;
    check(ort->SessionGetModelMetadata(session, &metadata));
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "xlstm_ts_scores", &record));
    if (!record) fail("the model is no graph of scores: write one with export_detector(scores=...)");

    /* The reading, what stands still, and the state go in; four results and the state come out. */
    double threshold, version;
    if (read_numbers(find(record, "\"version\": "), &version, 1) != 1 || version != 2)
        fail("the model is of another version than this program reads: 2");
    const char *object = find(record, "\"inputs\": "), *state = find(record, "\"state\": ");
    if (read_numbers(find(record, "\"threshold\": "), &threshold, 1) != 1)
        fail("the metadata of the model are incomplete");
    size_t n_in = 1, n_out = 4, most = 0;
    for (const char *at = object; (at = strchr(at, '{')); at++) most++;
    char **inputs = allocate(most + 1, sizeof(char *)), **outputs = allocate(most + 4, sizeof(char *));
    OrtValue **in[2], **out[2]; /* of turn */
    for (int turn = 0; turn < 2; turn++) {
        in[turn] = allocate(most + 1, sizeof(OrtValue *));
        out[turn] = allocate(most + 4, sizeof(OrtValue *));
    }
    size_t channels = 0;
    while ((object = strchr(object, '{'))) {
        int is_state = object > state;
        Tensor one = make_described(object);
        inputs[n_in] = find_text(object, "\"name\": ");
        if (!strcmp(inputs[n_in], "gap")) channels = one.size; /* of each channel, one */
        in[0][n_in] = in[1][n_in] = one.value;
        if (is_state) { /* two copies, which the model reads and writes in turn */
            Tensor other = make_described(object);
            outputs[n_out] = find_text(object, "\"next\": ");
            in[1][n_in] = out[0][n_out] = other.value;
            out[1][n_out++] = one.value;
        }
        n_in++;
        object = find(object, "}");
    }
    Tensor reading = make_row(channels), shares = make_row(channels), slow = make_row(channels);
    Tensor stuck = make_row(channels), score = make_row(1);
    const char *names[] = {"score", "contributions", "slow", "stuck"};
    Tensor *results[] = {&score, &shares, &slow, &stuck};
    inputs[0] = "reading";
    for (int turn = 0; turn < 2; turn++) {
        in[turn][0] = reading.value;
        for (int k = 0; k < 4; k++) out[turn][k] = results[k]->value;
    }
    for (int k = 0; k < 4; k++) outputs[k] = (char *)names[k];

    char header[MAX_LINE];
    if (!next_line(header)) fail("the readings have no header");
    for (int turn = 0; read_line(reading); turn = 1 - turn) {
        check(ort->Run(session, NULL, (const char *const *)inputs, (const OrtValue *const *)in[turn],
                       n_in, (const char *const *)outputs, n_out, out[turn]));
        double now = *(double *)score.data;
        int alarm = now >= threshold;
        for (size_t c = 0; c < channels; c++)
            alarm |= ((double *)slow.data)[c] >= 1 || ((double *)stuck.data)[c] > 0;
        printf("%.9g,%d", now, alarm);
        for (size_t c = 0; c < channels; c++) printf(",%.6g", ((double *)shares.data)[c]);
        printf("\n");
        fflush(stdout); /* who reads a pipe is to hear of it now */
    }
    return 0; /* the system takes back what a program that ends has held */
}
