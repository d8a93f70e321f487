/*
 * gradio runs this when a page opens (page.py): the server's answer, and what the fields hold now -> their updates.
 * A field that no longer holds what it was drawn with was changed by the user meanwhile, and keeps its value.
 */
(given, ...now) => {
    const { drawn, updates } = JSON.parse(given);
    const isUntouched = (index) => JSON.stringify(now[index]) === JSON.stringify(drawn[index]);

    return updates.map((update, index) => {
        if (isUntouched(index)) return update;
        const { value, ...rest } = update; // its choices and limits are the model's all the same
        return rest;
    });
}
