
/* --- saving and loading states ----------------------------------------------------------------------------------------- */

static int write_states(FILE *file) {
    unsigned char start[8];
    for (int i = 0; i < 8; i++) start[i] = (unsigned char)(header_bytes >> (8 * i));
    int fine = fwrite(start, 1, 8, file) == 8 && fwrite(header, 1, header_bytes, file) == header_bytes;
    for (int64_t i = 0; i < TENSORS && fine; i++) /* in the order of the file */
        fine = fwrite(blocks[tensors[i].region] + tensors[i].offset, 1, (size_t)tensors[i].bytes, file) == (size_t)tensors[i].bytes;
    return fine;
}

/* Written beside its place and moved there when complete, so that nobody finds half a file. */
static int save(const char *path) {
    if (!ready) return ${NAME}_NOT_READY;
    char *beside = malloc(strlen(path) + 6);
    if (beside == NULL) return ${NAME}_NO_MEMORY;
    strcpy(beside, path);
    strcat(beside, ".part");
    FILE *file = fopen(beside, "wb");
    int fine = file != NULL && write_states(file);
    if (file != NULL) fine = (fclose(file) == 0) && fine;
    fine = fine && rename(beside, path) == 0;
    if (!fine && file != NULL) remove(beside);
    free(beside);
    return fine ? ${NAME}_OK : ${NAME}_NOT_WRITTEN;
}

PUBLIC int ${name}_save(const char *file) {
    pthread_mutex_lock(&turn);
    const int status = save(file);
    pthread_mutex_unlock(&turn);
    return status;
}

PUBLIC int ${name}_load(const char *file) {
    pthread_mutex_lock(&turn);
    int status = ready ? load(file) : ${NAME}_NOT_READY;
    if (status == ${NAME}_OK) status = prepare_weights();
    pthread_mutex_unlock(&turn);
    return status;
}
