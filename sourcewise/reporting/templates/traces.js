{% include "difference.js" %}
{% include "trace_parts.js" %}
{% include "trace_what_if.js" %}
{% include "trace_self.js" %}
{% include "trace_save.js" %}
{% include "trace.js" %}
