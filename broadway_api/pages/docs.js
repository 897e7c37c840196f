// Swagger UI over our own description. Without a validator: the default one is on somebody else's host.
"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#description",
  validatorUrl: null,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
